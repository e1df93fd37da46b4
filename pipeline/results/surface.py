"""Speedup over context and link: the projection's model fitted to some rows of a benchmark, and what it says of all."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.cell import CellRow
from pipeline.results.file import Result, Row, Typed
from pipeline.results.projection import ErrorStatistics

Wins = Literal["everywhere", "nowhere", "below", "above"]


class FittedValue(Typed):
    """One value of the model, with its 95% interval over launches."""

    value: float = Field(description="geometric mean of a fit to each launch's medians")
    low: float | None = Field(description="lower end of its t interval; null below 3 launches")
    high: float | None = Field(description="upper end")
    unit: str = Field(description="unit, in words")


class SurfaceRow(CellRow):
    """One timed row beside the fitted model's time for it."""

    fitted: bool = Field(description="the row was used to fit")
    link_bits_per_s: float = Field(description="rate of the link, as probed")
    measured_ms: float = Field(description="median, ms")
    projected_ms: float = Field(description="the fitted model's, geometric mean over launches' fits, ms")
    error_relative: float = Field(description="projected_ms / measured_ms − 1")
    measured_speedup: float | None = Field(description="t_standard / t − 1 as measured")
    measured_speedup_low: float | None = Field(description="lower end of its 95% interval")
    measured_speedup_high: float | None = Field(description="upper end")
    projected_speedup: float | None = Field(description="t_standard / t − 1 of the fitted model")
    projected_speedup_low: float | None = Field(
        description="lower end of the t interval over fits a launch: the model's own error is not in it"
    )
    projected_speedup_high: float | None = Field(description="upper end")


class SurfacePoint(Row):
    """The fitted model between and beyond the timed cells."""

    architecture: str = Field(description="architecture")
    context: int = Field(description="prompt length in tokens")
    link: str | None = Field(description="a link without a limit; null: one limited to the rate")
    link_bits_per_s: float = Field(description="rate of the link")
    speedup: float = Field(description="t_standard / t − 1")
    speedup_over_split: float | None = Field(description="t_standard_split / t − 1; null where it was not timed")


class BreakEven(Row):
    """The link at which an architecture stops, or begins, to be faster than another at one context."""

    architecture: str = Field(description="architecture")
    against: str = Field(description="what it is held against")
    context: int = Field(description="prompt length in tokens")
    wins: Wins = Field(
        description="faster on all limited links of the surface, on none, or on those below or above the rate"
    )
    link_bits_per_s: float | None = Field(
        description="the rate, geometric mean over launches' fits; where these win on different sides, that of their "
        "mean gain; null where it wins everywhere or nowhere"
    )
    low: float | None = Field(
        description="lower end of its t interval; null below 3 launches, or where their fits win on different sides"
    )
    high: float | None = Field(description="upper end")


class Without(Typed):
    """The fit with terms of the model left out: what they are worth."""

    left_out: list[str] = Field(description="values of the model")
    errors: dict[str, ErrorStatistics] = Field(
        description="grouped as the result's own; of one fit to all launches' times"
    )


class SurfaceResult(Result):
    """surface-<benchmark>.json: a fitted model of one size on one number of ranks."""

    file_name: ClassVar[str] = "results/<scale>/surface-<benchmark>.json"
    command: ClassVar[str] = "python -m stages.benchmark_ttft benchmark=ttft_surface link=surface"
    schema_name: Literal["surface"] = "surface"
    schema_version: Literal[1] = 1
    benchmark: str = Field(description="benchmark config")
    scale: str = Field(description="scale of the benchmark's file")
    size: str = Field(description="label of the models' size")
    batch_size: int = Field(description="prompts per forward")
    tp_size: int = Field(description="ranks")
    launches: int = Field(description="launches that the rows come from")
    method: str = Field(description="the model and which rows it was fitted to, in words")
    values: dict[str, FittedValue] = Field(description="what was fitted, by name of the hardware's field")
    errors: dict[str, ErrorStatistics] = Field(
        description="relative errors of times: fitted, held_out (fitted architectures in other cells), and "
        "held_out_<architecture>, of which nothing was fitted. The bound depends on no link, so most of its rows "
        "in other cells are fitted ones timed again: these are in no group"
    )
    speedup_errors: dict[str, ErrorStatistics] = Field(
        description="relative errors of t_standard / t, by architecture, over its rows that were not fitted (the "
        "standard row of their cell may have been); none of the bound, as in errors"
    )
    without: list[Without] = Field(description="fits with terms of the model left out")
    rows: list[SurfaceRow] = Field(description="every timed row")
    points: list[SurfacePoint] = Field(description="the surface")
    break_even: list[BreakEven] = Field(description="where it crosses zero, at the timed contexts")
