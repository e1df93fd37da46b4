"""The header before every payload of an exchange, by which the receiver knows whether it is what it awaits."""

import struct
from dataclasses import dataclass

import torch

from pipeline.errors import TransportError

MARK = b"sum\n"
LAYOUT = struct.Struct("<4sBBxxIQq")  # mark, wire format, type, sequence, payload bytes, start in nanoseconds
HEADER_BYTES = LAYOUT.size
WRAP = 1 << 32  # sequence numbers begin anew there
DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


@dataclass(frozen=True)
class Header:
    """One payload: `wire` is its format's code, `started_ns` the sender's monotonic clock when it was started."""

    sequence: int
    dtype: torch.dtype
    wire: int
    payload_bytes: int
    started_ns: int = 0

    def pack(self) -> bytes:
        code = DTYPES.index(self.dtype)
        return LAYOUT.pack(MARK, self.wire, code, self.sequence % WRAP, self.payload_bytes, self.started_ns)

    def __str__(self) -> str:
        return (
            f"sum {self.sequence} of {self.payload_bytes} bytes, {str(self.dtype).removeprefix('torch.')}, "
            f"wire format {self.wire}"
        )


def read_header(raw: bytes, awaited: Header, own: str, other: str) -> Header:
    """The other side's header; TransportError naming both sides' values where it is none, or not of what is awaited."""
    mark, wire, code, sequence, payload_bytes, started_ns = LAYOUT.unpack(raw)
    if mark != MARK or code >= len(DTYPES):
        raise TransportError(f"{own} awaits {awaited}; what {other} sent begins no sum: {raw.hex(' ')}")
    found = Header(sequence, DTYPES[code], wire, payload_bytes, started_ns)
    same = (awaited.sequence % WRAP, awaited.dtype, awaited.wire, awaited.payload_bytes)
    if same != (sequence, found.dtype, wire, payload_bytes):
        raise TransportError(f"{own} awaits {awaited}; {other} sent {found}")
    return found
