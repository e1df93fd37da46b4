"""Power laws of the loss: loss = scale · x^(−exponent), a line in log x and log loss.

The interval is over seeds as units, for runs of one seed are no independent draws: they share the order of the tokens
and, across token counts, a trunk. Leaving out one seed at a time gives each seed's share in a number (where all seeds
ended everywhere it is the seed's own fit), and Student's t over these shares the interval. In 4,000 simulated laws of 3
seeds at 3 token counts that share a trunk (correlation 0.8) it covers 95%; resampling seeds covers 73%, and the line's
own standard error over all runs 99%, for it takes what a seed's runs share for scatter about the line. How
far the losses are from any such law is no part of the interval: the worst residual tells.
"""

import math
from collections.abc import Sequence
from statistics import fmean, linear_regression
from typing import NamedTuple

from pipeline.results.quality import Estimate
from pipeline.results.seeds import around, half_width

LARGEST_LOG = 700.0  # e to it is still a float


class Point(NamedTuple):
    """The loss of a run that ended, in nats a token, at x parameters or tokens."""

    x: float
    seed: int
    loss_nats: float


class Fitted(NamedTuple):
    """A law, by the fields of results.Law."""

    points: int
    scale: Estimate
    exponent: Estimate
    worst_residual_nats: float


def fit(points: Sequence[Point]) -> Fitted | None:
    """Least squares over all runs, 95% intervals over seeds; None below two different x.

    The intervals are null below two seeds, and where without one of the seeds a single x is left.
    """
    xs = sorted({point.x for point in points})
    if len(xs) < 2:
        return None
    slope, intercept = _line(points)
    seeds = sorted({point.seed for point in points})
    rests = [[point for point in points if point.seed != seed] for seed in seeds]
    slopes: list[float] = []
    intercepts: list[float] = []
    if all(len({point.x for point in rest}) > 1 for rest in rests):
        for rest in rests:
            without = _line(rest)
            slopes.append(len(seeds) * slope - (len(seeds) - 1) * without[0])
            intercepts.append(len(seeds) * intercept - (len(seeds) - 1) * without[1])
    log_scale = around(intercept, half_width(intercepts))
    residuals = [
        fmean(point.loss_nats for point in points if point.x == x) - math.exp(intercept + slope * math.log(x))
        for x in xs
    ]
    return Fitted(
        points=len(xs),
        scale=Estimate(value=_exp(intercept), low=_exp(log_scale.low), high=_exp(log_scale.high)),
        exponent=around(-slope, half_width(slopes)),
        worst_residual_nats=max(map(abs, residuals)),
    )


def _line(points: Sequence[Point]) -> tuple[float, float]:
    """Slope and intercept in logarithms."""
    found = linear_regression([math.log(point.x) for point in points], [math.log(point.loss_nats) for point in points])
    return found.slope, found.intercept


def _exp(log: float | None) -> float | None:
    """e to it; x close together leave the scale at x = 1, far outside of them, open by any number of decades."""
    return None if log is None else math.exp(min(log, LARGEST_LOG))
