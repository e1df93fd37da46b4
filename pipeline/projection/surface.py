"""Speedup over context and link of a benchmark's architectures: fitted to some of its rows, held against all of them.

pipeline/projection/fitted_rows.py says which are fitted. Each launch has a fit of its own: every number is the
geometric mean of what these say, as a row's time is of its launches' medians, and intervals are around it.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

import numpy as np

from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.link import bits_per_second
from pipeline.config.model import ModelConfig
from pipeline.models.timed import ModelByName, timed_model
from pipeline.projection.fit import UNITS, Case, fit, values
from pipeline.projection.fitted_rows import (
    FITTED_ARCHITECTURES,
    LEFT_OUT,
    fitted_architectures,
    fitted_cells,
    is_held_out,
)
from pipeline.projection.hardware import Hardware
from pipeline.results.cell import BASELINE, BOUND, EXACT_RIVAL
from pipeline.results.projection import ErrorStatistics
from pipeline.results.statistics import Summary, median, summarise
from pipeline.results.surface import BreakEven, FittedValue, SurfacePoint, SurfaceResult, SurfaceRow, Wins, Without
from pipeline.results.ttft import TtftResult, TtftRow

UNLIMITED = 4e10  # bits/s of a link that was neither limited nor probed
STEPS = 13  # contexts and links of the surface
PRECISION = 1.005  # ratio of two rates between which a break-even is not sought further
METHOD = (
    "two streams with a roofline per operator, least squares on log(projected / measured) of standard, parallel, "
    "standard_split and the bound in every second cell of contexts × links; a fit to each launch's medians, and their "
    "geometric mean with Student's t intervals"
)


@dataclass(frozen=True)
class _Row:
    row: TtftRow
    case: Case
    fitted: bool

    @property
    def by_launch(self) -> list[float]:
        return [float(np.median(rounds)) for rounds in self.row.samples_ms]


@dataclass(frozen=True)
class _Fits:
    """A fit to each launch; together they say the geometric mean of what each does."""

    launches: tuple[Hardware, ...]
    dtype: str

    def milliseconds(self, case: Case) -> float:
        return median([[case.milliseconds(device, self.dtype)] for device in self.launches])

    def ratio(self, baseline: Case, own: Case) -> Summary:
        """t_baseline / t."""
        return summarise([[_ratio(baseline, own, device, self.dtype)] for device in self.launches])


def surface(result: TtftResult, benchmark: BenchmarkConfig, lookup: ModelByName) -> SurfaceResult:
    """The surface of the benchmark's first size, batch and number of ranks.

    Raises ResultError with too few rows to fit, ConfigError for a model that does not exist.
    """
    shape, tp_size, batch_size = benchmark.shapes[0], benchmark.tp_sizes[0], benchmark.batch_sizes[0]
    models = {name: timed_model(benchmark, shape, name, tp_size, lookup) for name in benchmark.architectures}
    rows = _rows(
        [
            row
            for row in result.rows
            if (row.size, row.tp_size, row.batch_size) == (shape.size, tp_size, batch_size)
            and row.architecture in (*models, BOUND)
            and not row.oversubscribed
        ],
        models,
    )
    fits = _fits(rows, benchmark.dtype)
    shown = [_surface_row(one, next((b for b in rows if _is_baseline(b.row, one.row)), None), fits) for one in rows]
    return SurfaceResult(
        benchmark=result.benchmark,
        scale=result.scale,
        size=shape.size,
        batch_size=batch_size,
        tp_size=tp_size,
        launches=len(fits.launches),
        method=METHOD,
        values=_values(fits),
        errors=_errors((row.architecture, row.fitted, row.error_relative) for row in shown),
        speedup_errors=_speedup_errors(shown),
        without=[_without(rows, names, benchmark.dtype) for names in LEFT_OUT],
        rows=shown,
        points=_points(rows, models, fits),
        break_even=_break_even(rows, models, fits),
    )


def _rows(rows: Sequence[TtftRow], models: Mapping[str, ModelConfig]) -> list[_Row]:
    chosen = fitted_cells({(row.context, str(row.link)) for row in rows})
    return [
        _Row(
            row,
            Case(
                models[BASELINE if row.architecture == BOUND else row.architecture],
                row.context,
                row.batch_size,
                row.tp_size,
                (row.link_measured_bits_per_s or bits_per_second(str(row.link)) or UNLIMITED) / 8,
                bits_per_second(str(row.link)) is not None,
                row.architecture != BOUND,
            ),
            row.architecture in FITTED_ARCHITECTURES and (row.context, str(row.link)) in chosen,
        )
        for row in rows
    ]


def _fits(rows: Sequence[_Row], dtype: str) -> _Fits:
    chosen = [one for one in rows if one.fitted]
    cases = [one.case for one in chosen]
    launches = min((len(one.by_launch) for one in chosen), default=1)
    return _Fits(
        tuple(fit(cases, [one.by_launch[launch] for one in chosen], dtype) for launch in range(launches)), dtype
    )


def _is_baseline(row: TtftRow, of: TtftRow) -> bool:
    return row.architecture == BASELINE and row.cell == of.cell


def _ratio(baseline: Case, own: Case, device: Hardware, dtype: str) -> float:
    return baseline.milliseconds(device, dtype) / own.milliseconds(device, dtype)


def _surface_row(one: _Row, baseline: _Row | None, fits: _Fits) -> SurfaceRow:
    row, projected = one.row, fits.milliseconds(one.case)
    ratio = fits.ratio(baseline.case, one.case) if baseline else None
    speedup, low, high = (
        None if end is None else end - 1
        for end in ((ratio.median, ratio.low, ratio.high) if ratio else (None, None, None))
    )
    return SurfaceRow(
        kind="projected",
        **dict(row.cell),
        architecture=row.architecture,
        fitted=one.fitted,
        link_bits_per_s=8 * one.case.link_bytes_per_s,
        measured_ms=row.milliseconds,
        projected_ms=projected,
        error_relative=projected / row.milliseconds - 1,
        measured_speedup=row.speedup,
        measured_speedup_low=row.speedup_low,
        measured_speedup_high=row.speedup_high,
        projected_speedup=speedup,
        projected_speedup_low=low,
        projected_speedup_high=high,
    )


def _values(fits: _Fits) -> dict[str, FittedValue]:
    by_launch = [values(device) for device in fits.launches]
    found = {}
    for name, unit in UNITS.items():
        one = summarise([[of_launch[name]] for of_launch in by_launch])
        found[name] = FittedValue(value=one.median, low=one.low, high=one.high, unit=unit)
    return found


def _errors(rows: Iterable[tuple[str, bool, float]]) -> dict[str, ErrorStatistics]:
    """Of (architecture, whether fitted, relative error): the fitted, those held out, and whole architectures."""
    groups: dict[str, list[float]] = {}
    for architecture, fitted, error in rows:
        others = "held_out" if architecture in FITTED_ARCHITECTURES else f"held_out_{architecture}"
        if fitted or is_held_out(architecture, fitted):
            groups.setdefault("fitted" if fitted else others, []).append(error)
    return _known(groups)


def _speedup_errors(rows: Sequence[SurfaceRow]) -> dict[str, ErrorStatistics]:
    """By architecture, of rows that are held out."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.architecture == BASELINE or not is_held_out(row.architecture, row.fitted):
            continue
        if row.measured_speedup is not None and row.projected_speedup is not None:
            error = (1 + row.projected_speedup) / (1 + row.measured_speedup) - 1
            found.setdefault(row.architecture, []).append(error)
    return _known(found)


def _known(errors: Mapping[str, Sequence[float]]) -> dict[str, ErrorStatistics]:
    found = {name: ErrorStatistics.of(group) for name, group in errors.items()}
    return {name: one for name, one in found.items() if one is not None}


def _without(rows: Sequence[_Row], left_out: Sequence[str], dtype: str) -> Without:
    is_fitted = [one.fitted and one.row.architecture in fitted_architectures(left_out) for one in rows]
    chosen = [one for one, used in zip(rows, is_fitted, strict=True) if used]
    device = fit([one.case for one in chosen], [one.row.milliseconds for one in chosen], dtype, left_out)
    errors = _errors(
        (
            one.row.architecture,
            used,
            one.case.milliseconds(device, dtype) / one.row.milliseconds - 1,
        )
        for one, used in zip(rows, is_fitted, strict=True)
    )
    return Without(left_out=list(left_out), errors=errors)


@dataclass(frozen=True)
class _Link:
    name: str | None  # None: between those timed
    bits_per_s: float
    is_limited: bool

    def case(self, model: ModelConfig, context: int, like: Case) -> Case:
        return replace(
            like,
            model=model,
            context=context,
            link_bytes_per_s=self.bits_per_s / 8,
            is_limited=self.is_limited,
            communicates=True,
        )


def _links(rows: Sequence[_Row]) -> list[_Link]:
    """From the slowest to the fastest limited link in equal ratios, then those that are not limited."""
    limited = [8 * one.case.link_bytes_per_s for one in rows if one.case.is_limited]
    unlimited = {one.row.link: 8 * one.case.link_bytes_per_s for one in rows if not one.case.is_limited}
    return [
        *(_Link(None, rate, True) for rate in _spread(limited)),
        *(_Link(name, rate, False) for name, rate in unlimited.items()),
    ]


def _spread(numbers: Collection[float]) -> list[float]:
    """STEPS numbers from the least to the most, in equal ratios."""
    if len(set(numbers)) < 2:
        return list(set(numbers))
    return [float(one) for one in np.geomspace(min(numbers), max(numbers), STEPS)]


def _contexts(timed: Collection[int]) -> list[int]:
    """Those timed, and even ones between them."""
    even = (2 * round(one / 2) for one in _spread(timed))
    return sorted({*timed, *(min(max(one, min(timed)), max(timed)) for one in even)})


def _points(rows: Sequence[_Row], models: Mapping[str, ModelConfig], fits: _Fits) -> list[SurfacePoint]:
    found = []
    for context in _contexts({one.case.context for one in rows}):
        for link in _links(rows):
            times = {name: fits.milliseconds(link.case(model, context, rows[0].case)) for name, model in models.items()}
            split = times.get(EXACT_RIVAL)
            found += [
                SurfacePoint(
                    kind="projected",
                    architecture=name,
                    context=context,
                    link=link.name,
                    link_bits_per_s=link.bits_per_s,
                    speedup=times[BASELINE] / time - 1,
                    speedup_over_split=None if split is None or name == EXACT_RIVAL else split / time - 1,
                )
                for name, time in times.items()
                if name != BASELINE
            ]
    return found


def _break_even(rows: Sequence[_Row], models: Mapping[str, ModelConfig], fits: _Fits) -> list[BreakEven]:
    """Over the limited links, at the timed contexts, against the standard model and against its split."""
    links = [link for link in _links(rows) if link.is_limited]
    pairs = [
        (name, against)
        for against in (BASELINE, EXACT_RIVAL)
        for name in models
        if against in models and name not in (BASELINE, against)
    ]
    found = []
    for name, against in pairs if len(links) > 1 else []:
        for context in sorted({one.case.context for one in rows}):

            def gain(rate: float, device: Hardware, who: tuple[str, str, int] = (name, against, context)) -> float:
                own, other = (
                    replace(links[0], bits_per_s=rate).case(models[one], who[2], rows[0].case) for one in who[:2]
                )
                return math.log(_ratio(other, own, device, fits.dtype))

            rates = [link.bits_per_s for link in links]
            wins, rate, low, high = _break_even_of([partial(gain, device=device) for device in fits.launches], rates)
            found.append(
                BreakEven(
                    kind="projected",
                    architecture=name,
                    against=against,
                    context=context,
                    wins=wins,
                    link_bits_per_s=rate,
                    low=low,
                    high=high,
                )
            )
    return found


def _break_even_of(
    gains: Sequence[Callable[[float], float]], rates: Sequence[float]
) -> tuple[Wins, float | None, float | None, float | None]:
    """Wins, rate and its interval over launches; of their mean gain and without one where they win on other sides."""
    by_launch = [_crossing(rates, gain) for gain in gains]
    if len({wins for wins, _ in by_launch}) > 1:
        wins, rate = _crossing(rates, lambda rate: fmean(gain(rate) for gain in gains))
        return wins, rate, None, None
    known = [[rate] for _, rate in by_launch if rate is not None]
    if not known:
        return by_launch[0][0], None, None, None
    found = summarise(known)
    return by_launch[0][0], found.median, found.low, found.high


def _crossing(rates: Sequence[float], gain: Callable[[float], float]) -> tuple[Wins, float | None]:
    """Which side of which rate the gain is above zero on; of several crossings the slowest link's."""
    wins = [gain(rate) > 0 for rate in rates]
    for index in range(1, len(rates)):
        if wins[index - 1] != wins[index]:
            slower, faster = rates[index - 1], rates[index]
            while faster > PRECISION * slower:
                middle = math.sqrt(slower * faster)
                slower, faster = (middle, faster) if (gain(middle) > 0) == wins[index - 1] else (slower, middle)
            return ("below" if wins[index - 1] else "above"), math.sqrt(slower * faster)
    return ("everywhere" if wins[0] else "nowhere"), None
