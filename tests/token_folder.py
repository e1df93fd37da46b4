"""A small data folder made by the real data room from a few kilobytes of text."""

import pydoc_data.topics
from pathlib import Path

from pipeline.config.data import DataConfig
from pipeline.data.prepare import prepare


def write_token_folder(folder: Path, vocab_size: int = 512, characters: int = 200_000) -> Path:
    """Token shards of Python's own help topics under `folder`/tokens."""
    topics = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    source = folder / "text"
    source.mkdir()
    text = "\n\n".join(topics)[:characters]
    for index in range(8):
        part = len(text) // 8
        (source / f"{index}.txt").write_text(text[index * part : (index + 1) * part])
    config = DataConfig(
        name="tokens",
        corpus="local",
        source=[str(source)],
        tokenizer="bpe",
        tokenizer_vocab_size=vocab_size,
        val_fraction=0.1,
    )
    prepare(config, folder / "tokens", folder / "runs", "test", 1)
    return folder / "tokens"
