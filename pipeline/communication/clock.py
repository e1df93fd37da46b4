"""Instants on the host or on a GPU's stream, turned into nanoseconds once everything has happened."""

import time
from typing import Any, Protocol

import torch


def new_event(timing: bool = True) -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def milliseconds_between(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    """Waits for `end`."""
    end.synchronize()
    return float(begin.elapsed_time(end))


class Clock(Protocol):
    """`now` is cheap and never waits; `nanoseconds` may wait for the device."""

    def now(self) -> Any: ...

    def nanoseconds(self, instant: Any) -> int: ...


class HostClock:
    """The monotonic clock: what happens on the CPU happens when the host says so."""

    def now(self) -> int:
        return time.monotonic_ns()

    def nanoseconds(self, instant: Any) -> int:
        return int(instant)


class StreamClock:
    """CUDA events on whatever stream is current; nanoseconds since the clock was made, on the host's time line."""

    def __init__(self) -> None:
        torch.cuda.synchronize()
        self.host_ns = time.monotonic_ns()
        self.origin = self.now()

    def now(self) -> torch.cuda.Event:
        event = new_event()
        event.record()
        return event

    def nanoseconds(self, instant: Any) -> int:
        instant.synchronize()
        return self.host_ns + int(self.origin.elapsed_time(instant) * 1e6)


def clock_for(device: torch.device) -> Clock:
    return StreamClock() if device.type == "cuda" else HostClock()
