"""safetensors files read and written a block at a time, so that no export holds more than one block of a tensor.

The library maps a whole file (pages count as memory once touched) and writes from tensors that are all in memory;
a 6.7B model over four ranks wants neither.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import EllipsisType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pipeline.errors import CheckpointError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK_BYTES = 16 << 20
MAX_HEADER_BYTES = 100 << 20


class TensorFile:
    """A safetensors file open for reading; raises CheckpointError where it is missing or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file: BinaryIO = path.open("rb")
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from None
        try:
            size = struct.unpack("<Q", self.file.read(8))[0]
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(self.file.read(size))
            header.pop("__metadata__", None)
            self.entries = {name: StoredTensor(self, 8 + size, entry) for name, entry in header.items()}
            end = max((entry.end for entry in self.entries.values()), default=0)
            if path.stat().st_size < end:
                raise ValueError(f"{end - path.stat().st_size} bytes are missing at its end")
        except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
            self.file.close()
            raise CheckpointError(f"{path} is damaged: {error}") from None

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class StoredTensor:
    """A tensor in a file: slices along its first axis read only their own bytes."""

    def __init__(self, file: TensorFile, base: int, entry: dict[str, Any]) -> None:
        self.file = file
        self.shape = tuple(int(size) for size in entry["shape"])
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"its type {entry['dtype']} is none of {', '.join(DTYPES)}")
        self.dtype = DTYPES[entry["dtype"]]
        self.begin, self.end = (base + int(offset) for offset in entry["data_offsets"])
        if self.end - self.begin != math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError(f"{self.end - self.begin} bytes for the shape {self.shape}")

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start … stop of the first axis."""
        row_bytes = (self.end - self.begin) // max(1, self.shape[0])
        out = torch.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        view = out.view(torch.uint8).numpy().reshape(-1).data if out.numel() else memoryview(b"")
        self.file.file.seek(self.begin + start * row_bytes)
        if len(view) and self.file.file.readinto(view) != len(view):  # type: ignore[attr-defined]
            raise CheckpointError(f"{self.file.path} is damaged: it ends too early")
        return out

    def __getitem__(self, index: "slice | tuple[slice | EllipsisType, ...]") -> Tensor:
        if isinstance(index, slice):
            start, stop, _ = index.indices(self.shape[0])
            return self.rows(start, stop)
        return self.rows(0, self.shape[0])[index]

    def blocks(self) -> Iterator[Tensor]:
        """The tensor in order, some rows at a time, each block at most BLOCK_BYTES (a single row may be more)."""
        row_bytes = max(1, (self.end - self.begin) // max(1, self.shape[0]))
        step = max(1, BLOCK_BYTES // row_bytes)
        for start in range(0, self.shape[0], step):
            yield self.rows(start, min(start + step, self.shape[0]))


def write_tensors(
    path: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, blocks: Callable[[str], Iterable[Tensor]]
) -> int:
    """Write a safetensors file tensor by tensor; `blocks(name)` gives a tensor's rows in order. Returns its bytes.

    Blocks that are all zero become holes where the file system has them. Raises ValueError when blocks do not
    add up to their shape.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            written = 0
            for block in blocks(name):
                part = block.to(dtype).contiguous()
                if part.count_nonzero() == 0 and not torch.signbit(part).any():
                    file.seek(part.nbytes, 1)
                else:
                    file.write(part.view(torch.uint8).numpy().reshape(-1).data)
                written += part.nbytes
            if written != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name}: {written} bytes for the shape {shape} in {dtype}")
        file.truncate(8 + len(text) + offset)
    return 8 + len(text) + offset
