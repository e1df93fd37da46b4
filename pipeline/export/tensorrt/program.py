"""What a rank does with its engines: run a segment, start a sum on the side stream, wait for one."""

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from pipeline.errors import CheckpointError


@dataclass(frozen=True)
class Run:
    """Execute segment number `segment` on the main stream."""

    segment: int


@dataclass(frozen=True)
class Start:
    """Sum tensor `source` over the ranks into `result`, on the side stream, once the main stream has made it."""

    source: str
    result: str


@dataclass(frozen=True)
class Wait:
    """Hold the main stream until `result` is there."""

    result: str


Step = Run | Start | Wait
KINDS: dict[str, type[Run] | type[Start] | type[Wait]] = {"run": Run, "start": Start, "wait": Wait}


@dataclass
class Program:
    """Steps in order. A whole engine's program is a single run: its collectives are inside."""

    steps: list[Step] = field(default_factory=list)

    def start(self, step: Start, made_now: bool) -> None:
        """Add a start: behind the segment being written if that makes the tensor, else in front of it."""
        self.steps.insert(len(self.steps) if made_now else self._last_run(), step)

    def wait(self, step: Wait) -> None:
        """Add a wait in front of the segment being written, once."""
        if step not in self.steps:
            self.steps.insert(self._last_run(), step)

    def _last_run(self) -> int:
        return max(index for index, step in enumerate(self.steps) if isinstance(step, Run))

    def body(self) -> list[dict[str, Any]]:
        """As JSON data."""
        return [{"do": type(step).__name__.lower(), **asdict(step)} for step in self.steps]

    @classmethod
    def read(cls, body: list[dict[str, Any]]) -> "Program":
        """Raises CheckpointError on anything but what `body` gives."""
        try:
            steps = [KINDS[one["do"]](**{key: value for key, value in one.items() if key != "do"}) for one in body]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"not the program of a TensorRT engine: {error}") from None
        return cls(list(steps))


class Player(Protocol):
    """Carries out the steps of a program on some device."""

    def run(self, segment: int) -> None: ...

    def start(self, source: str, result: str) -> None: ...

    def wait(self, result: str) -> None: ...


def play(program: Program, player: Player) -> None:
    """Hand the steps to `player`, in order."""
    for step in program.steps:
        if isinstance(step, Run):
            player.run(step.segment)
        elif isinstance(step, Start):
            player.start(step.source, step.result)
        else:
            player.wait(step.result)
