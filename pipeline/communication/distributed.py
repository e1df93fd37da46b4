"""All-reduce over torch.distributed, asynchronous: gloo's threads carry it while the caller computes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.communication.wire import PLAIN, WireFormat


def all_gather(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:  # (...) -> (N, ...)
    """Every rank's `x`, in the order of ranks; waits for it."""
    mine = x.contiguous()
    gathered = mine.new_empty(dist.get_world_size(group), *mine.shape)
    dist.all_gather(list(gathered.unbind()), mine, group=group)
    return gathered


@dataclass(frozen=True)
class Pending:
    """A collective in flight; `buffer` holds the sum once `work` is done."""

    work: dist.Work
    buffer: Tensor

    def wait(self) -> Tensor:
        self.work.wait()
        return self.buffer

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """Call back, on a thread of the backend, when the sum is there."""
        self.work.get_future().then(lambda _: callback())


@dataclass(frozen=True)
class Gathering:
    """Every rank's payload on its way; the sum is taken when all are there."""

    work: dist.Work
    wire: WireFormat
    buffer: Tensor
    gathered: Tensor  # (N, payload bytes) uint8
    payload: Tensor  # kept while it is sent

    def wait(self) -> Tensor:
        self.work.wait()
        self.wire.add_up(list(self.gathered), self.buffer)
        return self.buffer

    def on_arrival(self, callback: Callable[[], None]) -> None:
        """Call back, on a thread of the backend, when all payloads are there."""
        self.work.get_future().then(lambda _: callback())


class DistributedCommunicator:
    """Sums over the ranks of `group` (the default group where None), in the caller's own tensor.

    Plain values go round the backend's ring. What was rounded for the wire is gathered whole from every rank and added
    up by each in the same order: N - 1 payloads leave a rank, where a ring's 2 (N - 1) / N would round at every step.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.world_size = dist.get_world_size(group)

    def start(self, x: Tensor, wire: WireFormat = PLAIN) -> Pending | Gathering:
        buffer = x.contiguous()
        if wire is PLAIN:
            work = dist.all_reduce(buffer, group=self.group, async_op=True)
            assert work is not None  # async_op=True always returns a handle inside the group
            return Pending(work, buffer)
        payload = wire.encode(buffer)
        gathered = torch.empty(self.world_size, payload.numel(), dtype=torch.uint8)
        work = dist.all_gather(list(gathered.unbind()), payload, group=self.group, async_op=True)
        assert work is not None
        return Gathering(work, wire, buffer, gathered, payload)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        return all_gather(x, self.group)
