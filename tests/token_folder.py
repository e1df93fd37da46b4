"""A small data folder made by the real data room from a few kilobytes of text."""

import pydoc_data.topics
from pathlib import Path

from pipeline.compose import compose
from pipeline.data.prepare import prepare
from pipeline.experiment import places
from pipeline.provenance import fingerprint


def write_token_folder(folder: Path, vocab_size: int = 512, characters: int = 200_000) -> Path:
    """Token shards of Python's own help topics under `folder`/tokens."""
    topics = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    source = folder / "text"
    source.mkdir()
    text = "\n\n".join(topics)[:characters]
    for index in range(8):
        part = len(text) // 8
        (source / f"{index}.txt").write_text(text[index * part : (index + 1) * part])
    config = compose(data_overrides(folder / "tokens", vocab_size)).data
    prepare(config, folder / "tokens", folder / "runs", fingerprint({"data": config.identity()}), 1)
    overrides = [*data_overrides(folder / "tokens", vocab_size), f"paths.data={folder}"]
    (place,) = places.place("data", compose(overrides))
    if not place.exists():  # where stages look for it: a name of one's own is followed by what it stands for
        place.symlink_to(folder / "tokens")
    return folder / "tokens"


def data_overrides(tokens: Path, vocab_size: int = 512) -> list[str]:
    """The settings that made `tokens`, for a command line."""
    return [
        "data=local",
        f"data.name={tokens.name}",
        f"data.source=[{tokens.parent / 'text'}]",
        "data.tokenizer=bpe",
        f"data.tokenizer_vocab_size={vocab_size}",
        "data.val_fraction=0.1",
    ]
