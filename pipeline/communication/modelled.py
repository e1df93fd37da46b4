"""The stand-in for a collective where one process on CPU claims to be many: its duration by a link model."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Deadline:
    """A sum that will have arrived at an instant of the host's clock."""

    buffer: Tensor
    due_s: float

    def wait(self) -> Tensor:
        left = self.due_s - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return self.buffer


class ModelledCommunicator:
    """Claims `world_size` ranks; a sum of n bytes is there `seconds_of(n)` after the link is free to take it.

    Collectives share one link: each begins when the one before has arrived.
    """

    def __init__(self, world_size: int, seconds_of: Callable[[int], float]) -> None:
        self.world_size = world_size
        self.seconds_of = seconds_of
        self._free_s = 0.0

    def start(self, x: Tensor) -> Deadline:
        begins = max(time.perf_counter(), self._free_s)
        self._free_s = begins + self.seconds_of(x.numel() * x.element_size())
        return Deadline(x, self._free_s)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """This rank's `x` for every rank, after the time of a sum of its size."""
        return self.start(x).wait().expand(self.world_size, *x.shape)
