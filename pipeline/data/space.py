"""Disk space that making tokens takes: one estimate, which the plan shows and the work asks for."""

import shutil
from pathlib import Path

from pipeline.config.data import DataConfig
from pipeline.data.corpus import Corpus
from pipeline.data.tokenise import token_dtype

TOKENS_PER_BYTE = {"gpt2": 0.25, "bpe": 0.35}  # of English: 0.23 on OpenWebText, 0.32 with 4,096 entries


def faults(config: DataConfig, corpus: Corpus, folder: Path, work: Path) -> list[str]:
    """A line for every disk that is too small: shards in `folder`, batches in `work` beside them until the shards are
    whole, and copies that reading the source makes; what an earlier run left in `work` is there already."""
    bytes_per_token = token_dtype(config.tokenizer_vocab_size).itemsize
    tokens = int(corpus.text_bytes * TOKENS_PER_BYTE[config.tokenizer]) * bytes_per_token
    done = sum(path.stat().st_size for path in work.glob("batch-*")) if work.is_dir() else 0
    needs = [
        (folder.parent, tokens, "shards", "paths.data"),
        (work.parent, max(0, tokens - done), "batches", "paths.runs"),
        *((place, size, "a copy of the text", "HF_HOME") for place, size in corpus.copies.items()),
    ]
    by_disk: dict[int, list[tuple[Path, int, str, str]]] = {}
    for need in needs:
        by_disk.setdefault(_standing(need[0]).stat().st_dev, []).append(need)
    return [fault for found in by_disk.values() if (fault := _fault(found))]


def _fault(needs: list[tuple[Path, int, str, str]]) -> str | None:
    """What one disk lacks of everything that is written there."""
    needed, free = sum(size for _, size, _, _ in needs), shutil.disk_usage(_standing(needs[0][0])).free
    if needed <= free:
        return None
    parts = ", ".join(f"{size / 1e9:.2f} GB of {what} in {place}" for place, size, what, _ in needs)
    settings = " or ".join(dict.fromkeys(setting for *_, setting in needs))
    return (
        f"the disk of {needs[0][0]} has {free / 1e9:.2f} GB free, the work needs about {needed / 1e9:.2f} GB there "
        f"({parts}): free space, or set {settings} to a larger disk"
    )


def _standing(path: Path) -> Path:
    """The nearest folder that exists already."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
