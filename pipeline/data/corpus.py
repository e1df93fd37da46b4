"""What every corpus offers, and the helpers that several kinds share."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data import split
from pipeline.errors import DataError
from pipeline.provenance import fingerprint

PLAIN = (".txt", ".md")
SUFFIXES = (*PLAIN, ".jsonl", ".parquet")


class Document(NamedTuple):
    """One text. `read_bytes` is its share of the source's bytes, for progress alone."""

    text: str
    read_bytes: int


class Corpus(Protocol):
    """Documents that come in the same order each time as long as `signature` stays the same."""

    @property
    def signature(self) -> str:
        """Names the source's present state (versions, sizes, times); other text, other signature."""

    @property
    def total_bytes(self) -> int:
        """Bytes that `documents` reads from the source, near enough for progress."""

    @property
    def text_bytes(self) -> int:
        """Bytes of text there are to read, estimated without reading or fetching it."""

    @property
    def copies(self) -> dict[Path, int]:
        """Bytes of copies that reading makes, by the folder where they come to lie."""

    def documents(self, start: int = 0) -> Iterator[Document]:
        """Documents from index `start` on; raises DataError on text that cannot be read."""

    def in_val(self, index: int) -> bool:
        """Whether document `index` is held out, as far as can be told before all are counted."""

    def val_mask(self, documents: int) -> np.ndarray:
        """Held-out documents of all that were read, (documents,) bool; both sides have at least one."""


class HashedSplit:
    """The split of corpora that bring none of their own: by document index and seed."""

    def __init__(self, config: DataConfig) -> None:
        self._fraction, self._seed = config.val_fraction, config.split_seed

    @property
    def copies(self) -> dict[Path, int]:
        return {}

    def in_val(self, index: int) -> bool:
        return split.in_val(index, self._fraction, self._seed)

    def val_mask(self, documents: int) -> np.ndarray:
        return split.val_mask(documents, self._fraction, self._seed)


def text_files(source: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The text files that a source names, sorted by name within a folder; raises DataError for none."""
    listed = ", ".join(suffixes)
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix in suffixes and path.is_file())
        if not found:
            raise DataError(f"data.source: {source} has no file that ends in {listed}")
        return found
    if not source.exists():
        raise DataError(f"data.source: {source} does not exist; name files or folders of {listed}")
    if source.suffix not in suffixes:
        raise DataError(f"data.source: {source} is not a file that ends in {listed}")
    return [source]


def file_signature(paths: list[Path]) -> str:
    stats = [(str(path), path.stat()) for path in paths]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def whole_characters(text: str, place: str) -> str:
    """`text` unless it has half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: not text: half a surrogate pair at character {error.start}") from error
    return text
