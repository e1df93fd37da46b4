"""All-reduce that training can go back through: the gradient is summed over the ranks on the way back.

Every rank's loss is a share of the whole, so that the loss is their sum. A sum's gradient on each rank is then the sum
of what all ranks feel at its use: an all-reduce again. It begins where the forward waited and is awaited where the
forward began, so that whatever hid the sum in the forward hides the gradient's sum too.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.communication.distributed import all_gather


@dataclass
class _Travel:
    """The collective in flight, forward or backward."""

    group: dist.ProcessGroup
    works: list[dist.Work] = field(default_factory=list)

    def begin(self, buffer: Tensor) -> None:
        work = dist.all_reduce(buffer, group=self.group, async_op=True)
        assert work is not None  # async_op=True always returns a handle inside the group
        self.works.append(work)

    def arrive(self) -> None:
        while self.works:
            self.works.pop().wait()


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, travel: _Travel) -> Tensor:
        ctx.travel = travel
        buffer = x.clone(memory_format=torch.contiguous_format)  # autograd may have kept x itself
        travel.begin(buffer)
        return buffer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.travel.arrive()
        return gradients[0], None


class _Wait(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, buffer: Tensor, travel: _Travel) -> Tensor:
        ctx.travel = travel
        travel.arrive()
        return buffer.data  # no view: FSDP mistrusts those

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        buffer = gradients[0].clone(memory_format=torch.contiguous_format)  # others may read what came in
        ctx.travel.begin(buffer)
        return buffer, None


@dataclass(frozen=True)
class DifferentiableSum:
    """A handle; `wait` may be called once."""

    buffer: Tensor
    travel: _Travel

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a collective is no part of a graph
    def wait(self) -> Tensor:
        return _Wait.apply(self.buffer, self.travel)  # type: ignore[no-any-return, no-untyped-call]


class DifferentiableCommunicator:
    """Sums over the ranks of `group`, forward and backward."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.world_size = dist.get_world_size(group)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a collective is no part of a graph
    def start(self, x: Tensor) -> DifferentiableSum:
        travel = _Travel(self.group)
        return DifferentiableSum(_Start.apply(x, travel), travel)  # type: ignore[no-untyped-call]

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """Without a gradient."""
        return all_gather(x.detach(), self.group)
