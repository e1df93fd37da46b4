"""Loss against Time To First Token: each arm held against a standard model of its own speed.

The standard model's losses at the measured sizes, joined by straight lines in log TTFT, say what loss a standard model
of any speed between them would have; beyond them nothing is said. An arm's gain is that loss minus its own.

Its 95% interval squares and adds two parts. Seeds: Student's t over the gains of each seed, as runs of one seed saw the
same tokens. Times: the medians of all times resampled over rounds, in pairs where they alternated, move the arm along
the lines. Simulated at 3 seeds it covers 96%, and up to 98% where the times are as unsure as the losses. What differs
between launches of the ranks, or between a projection and the hardware, is not in it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.results.quality import Estimate, QualityResult
from pipeline.results.seeds import around, half_width
from pipeline.results.statistics import Floats, interval
from pipeline.results.trade import TradeResult, TradeRow
from pipeline.study.times import Times

Finding = Literal["better", "worse", "undecided", "faster", "slower"]
FINDINGS: dict[Finding, str] = {
    "better": "better",
    "worse": "worse",
    "undecided": "undecided",
    "faster": "not compared, as faster than every {baseline} model here",
    "slower": "not compared, as slower than every {baseline} model here",
}


@dataclass(frozen=True)
class Losses:
    """An arm's losses at one size, in nats a token: the mean with its interval, and every run's by seed."""

    mean: Estimate
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Point:
    """A model in the plane of loss and time; `resampled_ms` (RESAMPLES,): how else its median might have come out."""

    losses: Losses
    milliseconds: float
    resampled_ms: Floats


def result(quality: QualityResult, times: Sequence[Times]) -> TradeResult:
    """All rows and the verdict. An arm without a run that ended, or without times, has none."""
    losses = central_losses(quality)
    rows = [row for one in times for row in trade_rows(losses, one, quality.baseline)]
    return TradeResult(
        study=quality.study,
        scale=quality.scale,
        central_tokens=quality.central_tokens,
        settings=[one.setting for one in times],
        rows=rows,
        verdict=verdict(rows, quality.baseline),
    )


def central_losses(quality: QualityResult) -> dict[tuple[str, str], Losses]:
    """Losses at the central token count by arm and size, of what ended."""
    by_seed: dict[tuple[str, str], dict[int, float]] = {}
    for run in quality.runs:
        if run.tokens == quality.central_tokens and run.loss_nats is not None:
            by_seed.setdefault((run.arm, run.size), {})[run.seed] = run.loss_nats
    return {
        (cell.arm, cell.size): Losses(cell.loss_nats, by_seed[cell.arm, cell.size])
        for cell in quality.cells
        if cell.tokens == quality.central_tokens and cell.loss_nats is not None
    }


def trade_rows(losses: Mapping[tuple[str, str], Losses], times: Times, baseline: str) -> Iterator[TradeRow]:
    """A row for each arm and size with a loss and a time of this kind."""

    def point(arm: str, size: str) -> Point:
        return Point(losses[arm, size], times.median_ms(arm, size), times.resampled_ms(arm, size))

    line = [point(baseline, size) for size in times.rounds if (baseline, size) in losses]
    for size, cell in times.rounds.items():
        for arm in cell:
            if (arm, size) not in losses:
                continue
            own = point(arm, size)
            is_baseline = arm == baseline
            standard = own.losses.mean.value if is_baseline else loss_at(own.milliseconds, line)
            yield TradeRow(
                kind=times.setting.kind,
                arm=arm,
                size=size,
                loss_nats=own.losses.mean,
                ttft_ms=times.estimate(arm, size),
                speedup=times.median_ms(baseline, size) / own.milliseconds - 1,
                standard_loss_nats=standard,
                gain_nats=None if is_baseline else gain(own, line, times.have_intervals),
            )


def loss_at(milliseconds: float, line: Sequence[Point]) -> float | None:
    """The loss on the line at a time; None outside of its points' times."""
    if not line or not min(one.milliseconds for one in line) <= milliseconds <= max(one.milliseconds for one in line):
        return None
    return float(_shares(milliseconds, line) @ _means(line))


def gain(own: Point, line: Sequence[Point], with_interval: bool = True) -> Estimate | None:
    """The line's loss at the point's time minus the point's own; None outside of the line's times.

    Without an interval below two seeds that ended everywhere, and where times are too few to have one.
    """
    standard = loss_at(own.milliseconds, line)
    if standard is None:
        return None
    value = standard - own.losses.mean.value
    seeds = sorted(set(own.losses.by_seed).intersection(*(one.losses.by_seed for one in line)))
    runs = np.asarray([[one.losses.by_seed[seed] for seed in seeds] for one in line])  # (points, seeds)
    by_seed = _shares(own.milliseconds, line) @ runs - [own.losses.by_seed[seed] for seed in seeds]
    of_seeds = half_width(by_seed.tolist())
    if of_seeds is None or not with_interval:
        return around(value, None)
    times = np.stack([one.resampled_ms for one in line], axis=1)  # (RESAMPLES, points)
    low, high = interval(line_shares(np.log(own.resampled_ms), np.log(times)) @ _means(line) - own.losses.mean.value)
    below, above = (math.hypot(of_seeds, max(0.0, of_times)) for of_times in (value - low, high - value))
    return Estimate(value=value, low=value - below, high=value + above)


def line_shares(at: Floats, times: Floats) -> Floats:
    """(draws, points) share of each point in the line's value at log times `at` (draws,), points at `times` (both).

    Straight between neighbours in time; beyond the ends the last stretch goes on, as a draw may fall just there.
    """
    draws, points = times.shape
    if points == 1:
        return np.ones((draws, 1))
    every = np.arange(draws)
    order = np.argsort(times, axis=1, kind="stable")
    ordered = np.take_along_axis(times, order, axis=1)
    right = np.clip((ordered <= at[:, None]).sum(axis=1), 1, points - 1)
    before, behind = ordered[every, right - 1], ordered[every, right]
    width = behind - before
    part = np.where(width > 0, (at - before) / np.where(width > 0, width, 1.0), 0.5)
    shares = np.zeros((draws, points))
    shares[every, order[every, right - 1]] = 1 - part
    shares[every, order[every, right]] += part
    return shares


def _shares(milliseconds: float, line: Sequence[Point]) -> Floats:
    """(points,) the share of each in the line's value at a time."""
    found: Floats = line_shares(np.log([milliseconds]), np.log([[one.milliseconds for one in line]]))[0]
    return found


def _means(line: Sequence[Point]) -> Floats:
    return np.asarray([one.losses.mean.value for one in line])


def finding(row: TradeRow, fastest_ms: float) -> Finding:
    """What a row says at equal TTFT, or on which side of the line it lies; `fastest_ms` is where that begins."""
    gained = row.gain_nats
    if gained is None:
        return "faster" if row.ttft_ms.value < fastest_ms else "slower"
    if gained.low is not None and gained.low > 0:
        return "better"
    return "worse" if gained.high is not None and gained.high < 0 else "undecided"


def verdict(rows: Sequence[TradeRow], baseline: str) -> str:
    """A sentence for each kind of time: which arms, at which sizes, are better, worse or undecided at equal TTFT."""
    return " ".join(
        _sentence([row for row in rows if row.kind == kind], kind, baseline)
        for kind in dict.fromkeys(r.kind for r in rows)
    )


def _sentence(rows: Sequence[TradeRow], kind: str, baseline: str) -> str:
    fastest_ms = min((row.ttft_ms.value for row in rows if row.arm == baseline), default=math.inf)
    found: dict[Finding, dict[str, list[str]]] = {name: {} for name in FINDINGS}  # sizes by arm
    for row in rows:
        if row.arm != baseline:
            found[finding(row, fastest_ms)].setdefault(row.arm, []).append(row.size)
    said = [
        f"{FINDINGS[name].format(baseline=baseline)}: "
        + ", ".join(f"{arm} ({', '.join(sizes)})" for arm, sizes in arms.items())
        for name, arms in found.items()
        if arms
    ]
    compared = sum(row.gain_nats is not None for row in rows)
    if compared:
        said.append(f"each of {compared} comparisons at 95%, not corrected for their number")
    return f"Beside a {baseline} model of the same TTFT ({kind}), {'; '.join(said) or 'nothing can be compared'}."
