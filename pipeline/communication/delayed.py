"""A link's latency where the kernel cannot add it: the sum really travels, and is handed over no earlier than by it.

A rank's payload leaves at the rate that the link was found to carry, one after another, and takes `delay_s` more to
arrive: by a nominal rate that is more, the delay would be over while bytes still travel. Both ranks of a socket tell
when they started, so that a peer that is late is late by the delay as well; gloo tells when its sum arrived, and the
delays of its steps, which follow each other, are added to that.
"""

import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pipeline.communication.communicator import Communicator, payload_bytes


@dataclass
class DelayedHandle:
    """A sum that is really there at some instant, and by the model of the link later."""

    inner: Any
    communicator: "DelayedCommunicator"
    bytes: int
    started_s: float
    arrived_s: float = 0.0  # where the transport tells

    def note_arrival(self) -> None:
        self.arrived_s = time.monotonic()

    def wait(self) -> Tensor:
        result: Tensor = self.inner.wait()
        started = max(self.started_s, getattr(self.inner, "started_s", 0.0))
        left = self.communicator.due_s(self.bytes, started, self.arrived_s) - time.monotonic()
        if left > 0:
            time.sleep(left)
        return result


class DelayedCommunicator:
    """`inner`'s sums, none there before start + bytes / rate + delay; sums leave in the order they are awaited.

    `steps` counts the messages of one sum that wait for each other: one of an exchange, 2 (N - 1) of a ring.
    """

    def __init__(self, inner: Communicator, delay_s: float, bits_per_s: float | None, steps: int = 1) -> None:
        self.inner, self.delay_s, self.bits_per_s, self.steps = inner, delay_s, bits_per_s, steps
        self.world_size = inner.world_size
        self._free_s = 0.0  # when the link has taken all before

    def start(self, x: Tensor) -> DelayedHandle:
        size = payload_bytes(self.inner, x)
        begun = time.monotonic()
        handle = DelayedHandle(self.inner.start(x), self, size, begun)
        watch = getattr(handle.inner, "on_arrival", None)
        if watch is not None:
            watch(handle.note_arrival)
        return handle

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """After its bytes and the delay of every rank's message to the next."""
        begun = time.monotonic()
        gathered = self.inner.gather(x)
        taken_s = x.numel() * x.element_size() * 8 / self.bits_per_s if self.bits_per_s else 0.0
        left = begun + taken_s + (self.world_size - 1) * self.delay_s - time.monotonic()
        if left > 0:
            time.sleep(left)
        return gathered

    def payload_bytes(self, x: Tensor) -> int:
        return payload_bytes(self.inner, x)

    def due_s(self, size: int, started_s: float, arrived_s: float) -> float:
        """The instant at which a sum of `size` bytes is there, seconds of the monotonic clock."""
        taken_s = size * 8 / self.bits_per_s if self.bits_per_s else 0.0
        self._free_s = max(self._free_s, started_s) + taken_s
        return max(self._free_s, arrived_s) + self.steps * self.delay_s
