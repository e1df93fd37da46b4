"""What a part has found: figures, each with where it comes from, and what stands behind them."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result, Row, Typed
from pipeline.results.ttft import TtftResult

Unit = Literal["", "tokens/s", "share", "s", "ms", "us", "bytes", "yes/no"]


class Figure(Row):
    """One number."""

    name: str = Field(description="what it is; with the part's name, its key in every table")
    value: float = Field(description="the number, in `unit`; 1 or 0 of yes/no")
    unit: Unit = Field(description="unit of `value`")


class LossPoint(Typed):
    """One line of a training log."""

    step: int = Field(description="optimizer steps taken")
    loss_nats: float = Field(description="training loss of that step's global batch, nats")
    tokens_per_s: float = Field(description="tokens a second since the line before, steps alone")


class GpuResult(Result):
    """One part on one device."""

    file_name: ClassVar[str] = "results/reference/<device>/<part>.json"
    command: ClassVar[str] = "make gpu"
    schema_name: Literal["gpu"] = "gpu"
    schema_version: Literal[1] = 1
    part: str = Field(description="name of the part, as --part takes it")
    identity: str = Field(description="names the work: settings, device, torch and code")
    device: str = Field(description="torch's name of the device")
    rehearsal: bool = Field(description="tiny shapes on a CPU: shows that the code runs, measures nothing")
    wall_s: float = Field(description="seconds of the last run of the part, imports left out")
    figures: list[Figure] = Field(description="what was found")
    notes: list[str] = Field(default_factory=list, description="what a reader must know beside the figures")
    curve: list[LossPoint] = Field(default_factory=list, description="training parts: the log")
    ttft: TtftResult | None = Field(None, description="TTFT parts: the whole result")

    def value(self, name: str) -> float | None:
        """The figure of this name, where there is one."""
        return next((one.value for one in self.figures if one.name == name), None)
