"""Token shards read back: checked against their manifest, then memory-mapped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.data import manifest as manifests
from pipeline.errors import DataError


class TokenSplit:
    """One split as a single run of `tokens` token ids, whatever shards hold it."""

    def __init__(self, shards: list[np.ndarray], name: str = "train") -> None:
        self.name = name
        self._shards = shards
        self._ends = np.cumsum([len(shard) for shard in shards])
        self.tokens = int(self._ends[-1]) if shards else 0

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens start … start + length - 1, (length,) int64, across shard ends; IndexError outside the split."""
        if start < 0 or length < 0 or start + length > self.tokens:
            raise IndexError(f"tokens {start} to {start + length} of the {self.tokens} of {self.name}")
        out = np.empty(length, dtype=np.int64)
        filled = 0
        index = int(np.searchsorted(self._ends, start, side="right"))
        while filled < length:
            shard = self._shards[index]
            offset = start + filled - (int(self._ends[index]) - len(shard))
            piece = shard[offset : offset + length - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            index += 1
        return out

    def windows(self, block_size: int) -> Iterator[np.ndarray]:
        """Windows k·block_size … (k+1)·block_size inclusive: every token but the first is a target once.

        Each is (block_size + 1,) int64; the last may be shorter, at least (2,).
        """
        for start in range(0, self.tokens - 1, block_size):
            yield self.read(start, min(block_size + 1, self.tokens - start))


class TokenData:
    """A data folder: `manifest`, and the splits `train` and `val`."""

    def __init__(self, folder: Path, manifest: dict[str, Any], train: TokenSplit, val: TokenSplit) -> None:
        self.folder, self.manifest, self.train, self.val = folder, manifest, train, val

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> "TokenData":
        """Open a folder that prepare_data wrote. Sizes are always checked, SHA-256 where `verify`.

        Raises DataError naming the shard that is missing, truncated or altered.
        """
        folder = Path(folder)
        manifest = manifests.read(folder)
        tokenizer = folder / manifest["tokenizer"]["file"]
        if not tokenizer.is_file() or files.sha256_of(tokenizer) != manifest["tokenizer"]["sha256"]:
            raise DataError(f"{tokenizer}: missing, or not the tokenizer these shards were made with; prepare again")
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        shards: dict[str, list[np.ndarray]] = {name: [] for name in manifests.SPLITS}
        for shard in manifest["shards"]:
            path = folder / shard["file"]  # an absolute name stands for itself
            _check(path, shard, dtype.itemsize, verify)
            shards[shard["split"]].append(np.memmap(path, dtype=dtype, mode="r"))
        return cls(folder, manifest, TokenSplit(shards["train"], "train"), TokenSplit(shards["val"], "val"))


def _check(path: Path, shard: dict[str, Any], itemsize: int, verify: bool) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"shard {path}: cannot be read ({error.strerror}); prepare the data again") from error
    expected = shard["tokens"] * itemsize
    if size != expected:
        kind = "truncated" if size < expected else "altered"
        raise DataError(f"shard {path}: {kind}: {size} bytes, the manifest says {expected}; prepare the data again")
    if verify and files.sha256_of(path) != shard["sha256"]:
        raise DataError(f"shard {path}: altered: its SHA-256 is not the manifest's; prepare the data again")
