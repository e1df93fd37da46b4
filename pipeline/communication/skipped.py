"""The no-communication bound: every collective is left out. Wrong output, right bound (paper facts, section 6)."""

from torch import Tensor

from pipeline.communication.local import Done


class SkippedCommunicator:
    """Claims `world_size` ranks and never talks to them."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def start(self, x: Tensor) -> Done:
        return Done(x)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        return x.expand(self.world_size, *x.shape)
