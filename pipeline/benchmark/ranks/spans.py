"""Where a forward's time goes: segments of one rank's main thread by kind of work, and its collectives beside them.

Kinds are those of the paper's Figures 6 and 7. Segments never overlap and add up to the whole forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipeline.communication import Communicator, TimedCommunicator
from pipeline.communication.clock import Clock, HostClock
from pipeline.models import Transformer
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm, WayLinear
from pipeline.results.cell import PARTS


@dataclass(frozen=True)
class Segment:
    """A stretch of the main thread (of the main stream on a GPU), nanoseconds of the clock."""

    kind: str
    name: str
    begin_ns: int
    end_ns: int


class SpanRecorder:
    """A stack of what runs now; whenever its top changes a segment ends."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or HostClock()
        self._stretches: list[tuple[str, str, Any, Any]] = []
        self._stack: list[tuple[str, str]] = []
        self._since: Any = None

    def push(self, kind: str, name: str) -> None:
        now = self._close()
        self._stack.append((kind, name))
        self._since = now

    def pop(self) -> None:
        self._since = self._close()
        self._stack.pop()

    def _close(self) -> Any:
        now = self.clock.now()
        if self._stack:
            self._stretches.append((*self._stack[-1], self._since, now))
        return now

    def segments(self) -> list[Segment]:
        """Everything recorded, in order; waits for the device."""
        resolved = [
            Segment(kind, name, self.clock.nanoseconds(begin), self.clock.nanoseconds(end))
            for kind, name, begin, end in self._stretches
        ]
        return [segment for segment in resolved if segment.end_ns > segment.begin_ns]

    @contextmanager
    def span(self, kind: str, name: str) -> Iterator[None]:
        self.push(kind, name)
        try:
            yield
        finally:
            self.pop()

    def milliseconds_by_kind(self) -> dict[str, float]:
        """Exclusive milliseconds of every kind, zeros included."""
        total: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        for segment in self.segments():
            total[segment.kind] += (segment.end_ns - segment.begin_ns) / 1e6
        return total


class SpanCommunicator:
    """A timed communicator whose calls from the main thread count as all-reduce time: what nothing hid."""

    def __init__(self, inner: Communicator, recorder: SpanRecorder) -> None:
        self.timed = TimedCommunicator(inner, recorder.clock)
        self.recorder = recorder
        self.world_size = inner.world_size

    def start(self, x: Tensor) -> "_SpanHandle":
        with self.recorder.span("all_reduce", "start"):
            return _SpanHandle(self.timed.start(x), self.recorder)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        with self.recorder.span("all_reduce", "gather"):
            return self.timed.gather(x)


@dataclass(frozen=True)
class _SpanHandle:
    handle: Any
    recorder: SpanRecorder

    def wait(self) -> Tensor:
        with self.recorder.span("all_reduce", "wait"):
            result: Tensor = self.handle.wait()
        return result


@contextmanager
def watched(model: Transformer, recorder: SpanRecorder, communicator: SpanCommunicator) -> Iterator[None]:
    """Hooks on every part of `model` for as long as the block lasts."""
    removers = []
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind is None:
            continue

        def enter(module: nn.Module, args: Any, kind: str = kind, name: str = name) -> None:
            overlapped = kind == "gemm" and communicator.timed.pending > 0
            recorder.push("overlapped_gemm" if overlapped else kind, name)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            recorder.pop()

        removers += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    plain = model.logits

    def logits(hidden: Tensor, tokens: range | None = None) -> Tensor:
        with recorder.span("lm_head", "lm_head"):
            return plain(hidden, tokens)

    model.logits = logits  # type: ignore[method-assign]  # an instance attribute for the length of the block
    try:
        yield
    finally:
        del model.logits
        for remover in removers:
            remover.remove()


def _kind(module: nn.Module) -> str | None:
    """What a module's own time, without that of its parts, is counted as."""
    if isinstance(module, WayLayerNorm):
        return "norm"
    if isinstance(module, WayLinear):
        return "gemm"
    if isinstance(module, Attention):
        return "attention"
    return "other" if isinstance(module, FeedForward) else None
