"""Time To First Token projected for hardware that is not at hand, beside published times where there are any."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.cell import Parts, TimedRow, Timeline
from pipeline.results.file import Result, Row, Typed
from pipeline.results.headline import Headline


class ProjectionRow(TimedRow):
    """One architecture in one cell; `link` is null: the hardware's own."""

    projected_ms: float = Field(description="prompt to first token, ms")
    published_ms: float | None = Field(description="the publication's, ms")
    fitted: bool = Field(description="the published time was used to fit")
    error_relative: float | None = Field(description="projected_ms / published_ms − 1")
    published_speedup: float | None = Field(description="speedup of the published times")
    communication_ms: float = Field(description="collectives, hidden or not, ms")
    collectives: int = Field(description="collectives of one forward on one rank")
    collective_bytes: int = Field(description="bytes that enter them on one rank")
    breakdown_ms: Parts = Field(description="milliseconds by kind of work")

    @property
    def milliseconds(self) -> float:
        return self.projected_ms


class LinkSweepRow(Row):
    """Geometric mean over the whole grid on a link of another bandwidth, all else equal."""

    architecture: str = Field(description="architecture, or no_communication for the bound")
    link_bandwidth_bytes_per_s: float = Field(description="one direction, bytes/s")
    geomean_speedup: float = Field(description="geometric mean of 1 + speedup, minus 1")
    cells: int = Field(description="cells of the grid")


class ErrorStatistics(Typed):
    """Relative errors of projected against published times."""

    rows: int = Field(description="rows compared")
    mean_absolute_error: float = Field(description="mean of |error_relative|")
    bias: float = Field(description="mean of error_relative")
    worst: float = Field(description="error_relative furthest from 0")

    @classmethod
    def of(cls, errors: Sequence[float]) -> "ErrorStatistics | None":
        """None for no errors."""
        if not errors:
            return None
        return cls(
            rows=len(errors),
            mean_absolute_error=sum(abs(error) for error in errors) / len(errors),
            bias=sum(errors) / len(errors),
            worst=max(errors, key=abs),
        )


class CalibrationFit(Typed):
    """Which values were fitted, and to what."""

    fitted_values: dict[str, float] = Field(description="efficiencies and overheads by name of the hardware field")
    fitted_rows: list[tuple[str, str, int, int]] = Field(description="architecture, size, context, tp_size")
    mean_absolute_error: float = Field(description="relative, over the fitted rows")


class ProjectionResult(Result):
    """projection-<hardware>-<benchmark>.json: one benchmark's grid on one device."""

    file_name: ClassVar[str] = "results/<scale>/projection-<hardware>-<benchmark>.json"
    command: ClassVar[str] = "python -m stages.project_ttft benchmark=NAME hardware=NAME"
    schema_name: Literal["projection"] = "projection"
    schema_version: Literal[2] = 2
    benchmark: str = Field(description="benchmark config")
    hardware: str = Field(description="hardware config")
    hardware_source: str = Field(description="where the hardware's numbers come from")
    dtype: str = Field(description="arithmetic of the forward")
    method: str = Field(description="how times are projected, in words")
    values: dict[str, float] = Field(description="efficiencies and overheads that the rows were computed with")
    calibration: CalibrationFit | None = Field(description="null: nothing published for this device")
    rows: list[ProjectionRow] = Field(description="one an architecture and cell")
    headline: Headline = Field(description="geometric means over the rows, projected and quoted")
    published_geomean_speedup: float | None = Field(
        description="the publication's own headline; null unless exactly its rows are projected"
    )
    errors: dict[str, ErrorStatistics | None] = Field(
        description="fitted, held_out, and held_out_<architecture>; null where there are no such rows"
    )
    timelines: list[Timeline] = Field(description="the first layers of one cell, an architecture each")
    link_sweep: list[LinkSweepRow] = Field(description="the grid on slower and faster links")
