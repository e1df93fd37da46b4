"""One process holds the whole model: the sum over ranks is what is there already."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Done:
    """A handle whose result is known."""

    result: Tensor

    def wait(self) -> Tensor:
        return self.result


class LocalCommunicator:
    """The communicator of a single process."""

    world_size = 1

    def start(self, x: Tensor) -> Done:
        return Done(x)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (1, ...)
        return x[None]


LOCAL = LocalCommunicator()
