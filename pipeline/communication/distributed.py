"""All-reduce over torch.distributed, asynchronous: gloo's threads or NCCL's stream carry it."""

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Pending:
    """A collective in flight; `buffer` holds the sum once `work` is done."""

    work: dist.Work
    buffer: Tensor

    def wait(self) -> Tensor:
        self.work.wait()
        return self.buffer


class DistributedCommunicator:
    """Sums over the ranks of `group` (the default group where None)."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.world_size = dist.get_world_size(group)

    def start(self, x: Tensor) -> Pending:
        buffer = x.contiguous()
        work = dist.all_reduce(buffer, group=self.group, async_op=True)
        assert work is not None  # async_op=True always returns a handle inside the group
        return Pending(work, buffer)
