"""Communicators that write down what passes through them: instants, counts, bytes."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.communication.clock import Clock, HostClock
from pipeline.communication.communicator import Communicator, Handle, payload_bytes


@dataclass
class Collective:
    """Instants of one collective by the communicator's clock, and what it carried."""

    bytes: int
    started: Any
    awaited: Any = None
    finished: Any = None  # the caller had the sum
    arrived: Any = None  # the sum was there, where the transport tells


@dataclass
class TimedCommunicator:
    """Wraps `inner`; `collectives` grows by one entry a start. A gather is none."""

    inner: Communicator
    clock: Clock = field(default_factory=HostClock)
    collectives: list[Collective] = field(default_factory=list)

    @property
    def world_size(self) -> int:
        return self.inner.world_size

    @property
    def pending(self) -> int:
        """Collectives begun and not yet awaited: what computation now runs over."""
        return sum(1 for collective in self.collectives if collective.awaited is None)

    def start(self, x: Tensor) -> "TimedHandle":
        record = Collective(payload_bytes(self.inner, x), self.clock.now())
        self.collectives.append(record)
        handle = self.inner.start(x)
        watch = getattr(handle, "on_arrival", None)
        if watch is not None:
            watch(lambda: setattr(record, "arrived", self.clock.now()))
        record.arrived = getattr(handle, "arrived", record.arrived)  # a GPU stream's event, recorded already
        return TimedHandle(handle, record, self.clock)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        return self.inner.gather(x)

    def spans_ns(self) -> list[tuple[int, int, int]]:
        """(begin, end, bytes) of every collective, nanoseconds of the clock; call when all have been awaited."""
        return [
            (
                self.clock.nanoseconds(one.started),
                self.clock.nanoseconds(one.arrived if one.arrived is not None else one.finished),
                one.bytes,
            )
            for one in self.collectives
        ]


@dataclass(frozen=True)
class TimedHandle:
    """Notes the instants around the inner handle's wait."""

    handle: Handle
    record: Collective
    clock: Clock

    def wait(self) -> Tensor:
        self.record.awaited = self.clock.now()
        result = self.handle.wait()
        self.record.finished = self.clock.now()
        return result


class CountingCommunicator:
    """Wraps `inner` and counts all-reduces and the bytes that enter them; gathers are left out."""

    def __init__(self, inner: Communicator) -> None:
        self.inner = inner
        self.world_size = inner.world_size
        self.collectives = 0
        self.bytes = 0

    def start(self, x: Tensor) -> Handle:
        self.collectives += 1
        self.bytes += payload_bytes(self.inner, x)
        return self.inner.start(x)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        return self.inner.gather(x)
