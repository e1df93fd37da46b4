"""A transport whose sums travel in one wire format."""

from typing import Protocol

from torch import Tensor

from pipeline.communication.communicator import Handle
from pipeline.communication.wire import WireFormat


class Transport(Protocol):
    """A communicator that is told per sum how its numbers travel."""

    @property
    def world_size(self) -> int: ...

    def start(self, x: Tensor, wire: WireFormat = ...) -> Handle: ...

    def gather(self, x: Tensor) -> Tensor: ...


class WiredCommunicator:
    """Sums over `transport` as `wire` has them; several of these may share one transport."""

    def __init__(self, transport: Transport, wire: WireFormat) -> None:
        self.transport, self.wire = transport, wire
        self.world_size = transport.world_size

    def start(self, x: Tensor) -> Handle:
        return self.transport.start(x, self.wire)

    def payload_bytes(self, x: Tensor) -> int:
        """What really enters the transport for `x`."""
        return self.wire.payload_bytes(x)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """Bit for bit, whatever the wire format of sums."""
        return self.transport.gather(x)
