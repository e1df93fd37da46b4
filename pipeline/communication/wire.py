"""How the numbers of a sum travel: as they are, as bfloat16, or as int8 in blocks with a scale each.

A rank sends one payload a sum. All ranks add up the same payloads, their own included, in the order of ranks: every
rank ends with the same bits, whatever was rounded on the way. Sums themselves are taken in the tensor's own type.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 128  # values that share an int8 scale: 4 bytes of scale on 128 of values
INT8_MOST = 127
LEAST_SCALE = 1e-30  # of a block of zeros: its inverse is still a number


class WireFormat(Protocol):
    """One way of putting a tensor into bytes."""

    name: str
    code: int  # stands in the header of an exchange

    def payload_bytes(self, x: Tensor) -> int:
        """Bytes that `x` becomes."""
        ...

    def encode(self, x: Tensor) -> Tensor:  # any shape, contiguous -> (payload_bytes,) uint8
        """May share `x`'s memory."""
        ...

    def add_up(self, payloads: Sequence[Tensor], out: Tensor) -> None:
        """Write the sum of the ranks' payloads, in the order of ranks, into `out`, which one of them may share."""
        ...


class Plain:
    """The tensor's own bytes."""

    name, code = "float32", 0  # as the ranks' arithmetic is on CPU; other types travel as they are too

    def payload_bytes(self, x: Tensor) -> int:
        return x.numel() * x.element_size()

    def encode(self, x: Tensor) -> Tensor:
        return x.view(-1).view(torch.uint8)

    def add_up(self, payloads: Sequence[Tensor], out: Tensor) -> None:
        """Of two ranks' payloads; more are summed by the backend itself."""
        first, second = (payload.view(out.dtype) for payload in payloads)
        torch.add(first, second, out=out.view(-1))  # flat: torch compares the strides of what may overlap


class BrainFloat:
    """Rounded to bfloat16: half the bytes of float32, three significant digits, no scale to choose."""

    name, code = "bfloat16", 1

    def payload_bytes(self, x: Tensor) -> int:
        return 2 * x.numel()

    def encode(self, x: Tensor) -> Tensor:
        return x.view(-1).to(torch.bfloat16).view(torch.uint8)

    def add_up(self, payloads: Sequence[Tensor], out: Tensor) -> None:
        first, *others = (payload.view(torch.bfloat16).view_as(out) for payload in payloads)
        out.copy_(first)
        for other in others:
            out.add_(other)


class Int8:
    """Symmetric int8 in blocks of BLOCK values, each with a float32 scale: largest magnitude over 127.

    A payload is all scales, then all values, and zeros up to a multiple of 4 bytes: payloads that lie one behind the
    other all begin where a scale may. What is not finite makes its block not finite: it is not hidden.
    """

    name, code = "int8", 2

    def payload_bytes(self, x: Tensor) -> int:
        return 4 * _blocks(x.numel()) + _up_to(x.numel(), 4)

    def encode(self, x: Tensor) -> Tensor:
        count = x.numel()
        blocks = _in_blocks(x.view(-1))  # (blocks, BLOCK)
        largest = blocks.abs().amax(1).float()  # (blocks,); torch's infinity norm takes ten times as long
        scales = largest.clamp_min(LEAST_SCALE * INT8_MOST).div_(INT8_MOST)
        values = (blocks * scales.reciprocal()[:, None]).round_()
        payload = torch.empty(self.payload_bytes(x), dtype=torch.uint8)
        cut = 4 * len(scales)
        payload[:cut].view(torch.float32).copy_(scales)
        payload[cut : cut + count].view(torch.int8).copy_(values.view(-1)[:count])
        payload[cut + count :].zero_()
        return payload

    def add_up(self, payloads: Sequence[Tensor], out: Tensor) -> None:
        count = out.numel()
        cut = 4 * _blocks(count)
        for rank, payload in enumerate(payloads):
            scales = payload[:cut].view(torch.float32)[:, None]  # (blocks, 1)
            values = _in_blocks(payload[cut : cut + count].view(torch.int8))  # (blocks, BLOCK)
            # converted, scaled and added one by one: types mixed are slow, and a fused step would round otherwise
            part = values.float().mul_(scales).view(-1)[:count].view_as(out)
            if rank == 0:
                out.copy_(part)
            else:
                out.add_(part)


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _up_to(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _in_blocks(flat: Tensor) -> Tensor:  # (n,) -> (blocks, BLOCK), the last filled up with zeros
    left = -flat.numel() % BLOCK
    return (F.pad(flat, (0, left)) if left else flat).view(-1, BLOCK)


PLAIN = Plain()
WIRES: dict[str, WireFormat] = {wire.name: wire for wire in (PLAIN, BrainFloat(), Int8())}
