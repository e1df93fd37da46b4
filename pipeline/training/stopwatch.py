"""How long a piece of every step takes on this rank's device, without making anything wait for it."""

import time
from typing import Any

import torch

from pipeline.communication.clock import milliseconds_between, new_event


class Stopwatch:
    """Times the stretch between `start` and `stop`; on a GPU by events on its stream."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []
        self._began: Any = None

    def start(self) -> None:
        self._began = self._now()

    def stop(self) -> None:
        self._spans.append((self._began, self._now()))

    def take(self) -> float:
        """Mean seconds since the last call; waits for the GPU."""
        if self._on_gpu:
            seconds = [milliseconds_between(begin, end) / 1e3 for begin, end in self._spans]
        else:
            seconds = [end - begin for begin, end in self._spans]
        self._spans = []
        return sum(seconds) / max(1, len(seconds))

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = new_event()
        event.record()
        return event
