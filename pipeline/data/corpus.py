"""What every corpus offers: documents in a fixed order, and a signature that changes with the text."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data import split


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
        """Bytes that `documents` reads from the source, near enough for progress and disk space."""

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

    def in_val(self, index: int) -> bool:
        return split.in_val(index, self._fraction, self._seed)

    def val_mask(self, documents: int) -> np.ndarray:
        return split.val_mask(documents, self._fraction, self._seed)


def open_corpus(config: DataConfig, workers: int = 1) -> Corpus:
    """The corpus that data.corpus names; raises DataError where it cannot be found or read."""
    if config.corpus == "demo":
        from pipeline.data.demo import DemoCorpus

        return DemoCorpus(config, workers)
    if config.corpus == "local":
        from pipeline.data.local import LocalCorpus

        return LocalCorpus(config)
    if config.corpus == "openwebtext":
        from pipeline.data.openwebtext import OpenWebText

        return OpenWebText(config)
    raise ValueError(f"{config.corpus} holds tokens, not text")
