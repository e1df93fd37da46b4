"""What a model's forward is handed: a way to add a tensor up over the ranks, begun now and awaited later.

And what its sampling is handed: a way to have every rank's small tensor, at once.
"""

from typing import Protocol

from torch import Tensor


class Handle(Protocol):
    """A sum on its way."""

    def wait(self) -> Tensor:
        """The sum over all ranks; same shape as what was started."""
        ...


class Communicator(Protocol):
    """All-reduce of sums, and a gather. Models see this and nothing of ranks, groups or devices."""

    @property
    def world_size(self) -> int: ...

    def start(self, x: Tensor) -> Handle:
        """Begin summing `x` over the ranks. The communicator owns `x` from here on: hand it a copy
        of anything that is still needed."""
        ...

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """Every rank's `x`, of one shape and type everywhere, in the order of ranks and bit for bit; waits for it.

        For what is small: candidates for the next token. No all-reduce, and not counted as one.
        """
        ...


def payload_bytes(communicator: Communicator, x: Tensor) -> int:
    """Bytes that enter a communicator for `x`: fewer than `x` has where a wire format rounds it."""
    counted = getattr(communicator, "payload_bytes", None)
    return int(counted(x)) if counted is not None else x.numel() * x.element_size()
