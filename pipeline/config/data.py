"""Which text, and how it becomes tokens."""

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pipeline.config.group import Group, Name, Seed

GPT2_VOCAB_SIZE = 50257


class DataConfig(Group):
    """A corpus, its tokenizer and its split."""

    name: Name = Field(description="name of the config file, and of the folder of shards")
    corpus: Literal["demo", "local", "openwebtext", "nanogpt"] = Field(description="where text comes from")
    source: list[str] = Field(
        default_factory=list,
        description="demo: package names; local: files or folders (.txt, .md, .jsonl, .parquet); openwebtext: "
        "hub id or local folder of the data set; nanogpt: folder with train.bin and val.bin",
    )
    revision: str | None = Field(
        None, description="branch, tag or commit of the hub's data set with its .parquet files; null: its main branch"
    )
    text_field: str = Field("text", description="field that holds the text (.jsonl, .parquet, data sets)")
    max_bytes: NonNegativeInt = Field(0, description="stop reading text after so many bytes; 0: read all")
    tokenizer: Literal["gpt2", "bpe"] = Field("gpt2", description="GPT-2 BPE, or a BPE trained on the text")
    tokenizer_vocab_size: PositiveInt = Field(50257, description="entries of the tokenizer, end-of-text included")
    tokenizer_dir: str | None = Field(
        None, description="folder with GPT-2's encoder.json and vocab.bpe; null: tiktoken's cache or download"
    )
    val_fraction: float = Field(0.0005, gt=0, lt=1, description="share of documents held out")
    split_seed: Seed = Field(2357, description="seed of the document split")
    shard_tokens: PositiveInt = Field(
        100_000_000, description="tokens per shard at most; a longer document has its own"
    )

    @model_validator(mode="after")
    def check_vocabulary(self) -> "DataConfig":
        if self.tokenizer == "gpt2" and self.tokenizer_vocab_size != GPT2_VOCAB_SIZE:
            raise ValueError(
                f"tokenizer_vocab_size={self.tokenizer_vocab_size}: tokenizer=gpt2 has {GPT2_VOCAB_SIZE} entries; "
                f"set {GPT2_VOCAB_SIZE}, or tokenizer=bpe"
            )
        if self.tokenizer == "bpe" and self.tokenizer_vocab_size <= 256:
            raise ValueError(
                f"tokenizer_vocab_size={self.tokenizer_vocab_size}: a byte-level BPE has at least 257 entries "
                "(the bytes and end of text); 4096 would be"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """All but where GPT-2's files lie: they are checked to be the same everywhere."""
        return self.model_dump(mode="json", exclude={"tokenizer_dir"})
