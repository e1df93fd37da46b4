"""A communicator that writes down when each collective began, was awaited, and was there."""

import time
from dataclasses import dataclass, field

from torch import Tensor

from pipeline.communication.communicator import Communicator, Handle


@dataclass
class Collective:
    """Instants of one collective, nanoseconds of the monotonic clock, and what it carried."""

    bytes: int
    started_ns: int
    awaited_ns: int = 0
    finished_ns: int = 0  # the caller had the sum
    arrived_ns: int = 0  # the sum was there, if the transport tells; else 0


@dataclass
class TimedCommunicator:
    """Wraps `inner`; `collectives` grows by one entry a start."""

    inner: Communicator
    collectives: list[Collective] = field(default_factory=list)

    @property
    def world_size(self) -> int:
        return self.inner.world_size

    @property
    def pending(self) -> int:
        """Collectives begun and not yet awaited: what computation now runs over."""
        return sum(1 for collective in self.collectives if not collective.awaited_ns)

    def start(self, x: Tensor) -> "TimedHandle":
        record = Collective(x.numel() * x.element_size(), time.monotonic_ns())
        self.collectives.append(record)
        handle = self.inner.start(x)
        watch = getattr(handle, "on_arrival", None)
        if watch is not None:
            watch(lambda: setattr(record, "arrived_ns", time.monotonic_ns()))
        return TimedHandle(handle, record)


@dataclass(frozen=True)
class TimedHandle:
    """Notes the instants around the inner handle's wait."""

    handle: Handle
    record: Collective

    def wait(self) -> Tensor:
        self.record.awaited_ns = time.monotonic_ns()
        result = self.handle.wait()
        self.record.finished_ns = time.monotonic_ns()
        return result


class CountingCommunicator:
    """Wraps `inner` and counts collectives and the bytes that enter them."""

    def __init__(self, inner: Communicator) -> None:
        self.inner = inner
        self.world_size = inner.world_size
        self.collectives = 0
        self.bytes = 0

    def start(self, x: Tensor) -> Handle:
        self.collectives += 1
        self.bytes += x.numel() * x.element_size()
        return self.inner.start(x)
