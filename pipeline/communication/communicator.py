"""What a model's forward is handed: a way to add a tensor up over the ranks, begun now and awaited later."""

from typing import Protocol

from torch import Tensor


class Handle(Protocol):
    """A sum on its way."""

    def wait(self) -> Tensor:
        """The sum over all ranks; same shape as what was started."""
        ...


class Communicator(Protocol):
    """All-reduce of sums. Models see this and nothing of ranks, groups or devices."""

    @property
    def world_size(self) -> int: ...

    def start(self, x: Tensor) -> Handle:
        """Begin summing `x` over the ranks. The communicator owns `x` from here on: hand it a copy
        of anything that is still needed."""
        ...
