"""The same collectives with nothing to hide them: each is awaited where it starts."""

from torch import Tensor

from pipeline.communication.communicator import Communicator, payload_bytes
from pipeline.communication.local import Done


class BlockingCommunicator:
    """Another communicator made to wait at once: what an architecture would cost without its overlap."""

    def __init__(self, inner: Communicator) -> None:
        self.inner = inner
        self.world_size = inner.world_size

    def start(self, x: Tensor) -> Done:
        return Done(self.inner.start(x).wait())

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        return self.inner.gather(x)

    def payload_bytes(self, x: Tensor) -> int:
        return payload_bytes(self.inner, x)
