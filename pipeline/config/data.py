"""Which text, and how it becomes tokens."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.config.group import Group


class DataConfig(Group):
    """A corpus, its tokenizer and its split."""

    name: str = Field(description="name of the config file, and of the folder of shards")
    corpus: Literal["demo", "local", "openwebtext", "nanogpt"] = Field(description="where text comes from")
    source: list[str] = Field(
        default_factory=list,
        description="demo: package names; local: files or folders; openwebtext: hub id or local "
        "folder of the data set; nanogpt: folder with train.bin and val.bin",
    )
    text_field: str = Field("text", description="field that holds the text (.jsonl, .parquet, data sets)")
    max_bytes: NonNegativeInt = Field(0, description="stop reading text after so many bytes; 0: read all")
    tokenizer: Literal["gpt2", "bpe"] = Field("gpt2", description="GPT-2 BPE, or a BPE trained on the text")
    tokenizer_vocab_size: PositiveInt = Field(50257, description="entries of the tokenizer, end-of-text included")
    tokenizer_dir: str | None = Field(
        None, description="folder with GPT-2's encoder.json and vocab.bpe; null: tiktoken's cache or download"
    )
    val_fraction: float = Field(0.0005, gt=0, lt=1, description="share of documents held out")
    split_seed: int = Field(2357, description="seed of the document split")
    shard_tokens: PositiveInt = Field(100_000_000, description="tokens per shard file at most")
