"""Token batches to shard files: one writer a split, cutting at ends of documents."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from pipeline.data.tokenise import Batch


class ShardWriter:
    """Writes one split's shards into `folder`, each of at most `shard_tokens` tokens.

    A document that is longer than that alone fills a shard of its own. `shards` holds the
    manifest's entries, `counts` how often each token id occurred, (vocab_size,) int64.
    """

    def __init__(self, folder: Path, split: str, shard_tokens: int, vocab_size: int) -> None:
        self._folder, self._split, self._limit = folder, split, shard_tokens
        self.shards: list[dict[str, Any]] = []
        self.counts = np.zeros(vocab_size, dtype=np.int64)
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def write(self, batch: Batch) -> None:
        """Append whole documents, beginning new shards where the present one is full."""
        ends = np.cumsum(batch.lengths)  # (documents,) end of each document within the batch
        first = 0
        while first < len(ends):
            begin = int(ends[first - 1]) if first else 0
            room = self._limit - (self.shards[-1]["tokens"] if self._file else 0)
            last = int(np.searchsorted(ends, begin + room, side="right"))  # documents first..last fit
            if last <= first:
                if self._file:  # full, or overfull with one long document
                    self._close()
                    continue
                last = first + 1
            self._append(batch.tokens[begin : ends[last - 1]], last - first, int(batch.text_bytes[first:last].sum()))
            first = last

    def _append(self, tokens: np.ndarray, documents: int, text_bytes: int) -> None:
        if self._file is None:
            name = f"{self._split}-{len(self.shards):05d}.bin"
            self._file = (self._folder / name).open("wb")
            self._digest = hashlib.sha256()
            self.shards.append({"file": name, "split": self._split, "tokens": 0, "documents": 0, "text_bytes": 0})
        raw = np.ascontiguousarray(tokens).astype(tokens.dtype.newbyteorder("<"), copy=False).tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self.counts += np.bincount(tokens, minlength=len(self.counts))
        shard = self.shards[-1]
        shard["tokens"] += len(tokens)
        shard["documents"] += documents
        shard["text_bytes"] += text_bytes

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.shards[-1]["sha256"] = self._digest.hexdigest()


def select(batch: Batch, documents: np.ndarray) -> Batch:
    """The documents of a batch where `documents` (documents,) bool is true."""
    of_token = np.repeat(documents, batch.lengths)
    return Batch(batch.tokens[of_token], batch.lengths[documents], batch.text_bytes[documents], 0)
