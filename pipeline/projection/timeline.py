"""A compute stream and a communication stream: what runs when, from order and dependencies alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Stream = Literal["compute", "communication"]
Category = Literal["norm", "gemm", "attention", "elementwise", "lm_head", "all_reduce"]


@dataclass(frozen=True)
class Task:
    """Work on one stream. It begins once the stream is free and all tasks in `after` have ended."""

    name: str
    category: Category
    stream: Stream
    seconds: float
    after: tuple[int, ...] = ()  # positions in the list of tasks, all before this one
    layer: int | None = None


@dataclass(frozen=True)
class Span:
    """A task with its place in time, in seconds from the start."""

    task: Task
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """The placed tasks of one forward, in order of issue."""

    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        return max((span.end_s for span in self.spans), default=0.0)

    @property
    def compute_seconds(self) -> float:
        """Time that the compute stream works."""
        return sum(span.task.seconds for span in self._on("compute"))

    @property
    def communication_seconds(self) -> float:
        """Time that the communication stream works, hidden or not."""
        return sum(span.task.seconds for span in self._on("communication"))

    @property
    def exposed_seconds(self) -> float:
        """Time that the compute stream waits: communication that nothing hides."""
        return self.seconds - self.compute_seconds

    def breakdown(self) -> dict[str, float]:
        """Seconds by category, summing to `seconds`: a GEMM's share beside a collective is `overlapped_gemm`."""
        transfers = [(span.start_s, span.end_s) for span in self._on("communication")]
        parts = dict.fromkeys(
            ("norm", "gemm", "overlapped_gemm", "attention", "elementwise", "lm_head", "all_reduce"), 0.0
        )
        first = 0
        for span in self._on("compute"):
            beside = 0.0
            if span.task.category == "gemm":
                while first < len(transfers) and transfers[first][1] <= span.start_s:
                    first += 1
                for start, end in transfers[first:]:
                    if start >= span.end_s:
                        break
                    beside += max(0.0, min(end, span.end_s) - max(start, span.start_s))
                parts["overlapped_gemm"] += beside
            parts[span.task.category] += span.task.seconds - beside
        parts["all_reduce"] += self.exposed_seconds
        return parts

    def _on(self, stream: Stream) -> list[Span]:
        return [span for span in self.spans if span.task.stream == stream]


def schedule(tasks: Sequence[Task]) -> Timeline:
    """Place every task as early as its stream's order and its dependencies allow.

    Raises ValueError where a task depends on one that is not before it.
    """
    free = {"compute": 0.0, "communication": 0.0}
    spans: list[Span] = []
    for index, task in enumerate(tasks):
        if any(not 0 <= earlier < index for earlier in task.after):
            raise ValueError(f"task {index} ({task.name}) depends on {task.after}: only earlier tasks can be awaited")
        start = max([free[task.stream], *(spans[earlier].end_s for earlier in task.after)])
        end = start + task.seconds
        free[task.stream] = end
        spans.append(Span(task, start, end))
    return Timeline(tuple(spans))
