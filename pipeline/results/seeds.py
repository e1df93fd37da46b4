"""Intervals over seeds: of a mean, and of a difference between two arms that saw the same tokens in the same order.

Each cell has Student's t of its own few seeds. Pooling the variance over a study's cells gives narrower intervals, but
only where it is the same in all: in 20,000 simulated studies at 3 seeds, standard deviations apart by a factor of √2
between arms cover 91% and 98% instead of 95%, by a factor of 2 88% and 100%; pooled over one arm's token counts, whose
runs share a trunk (correlation 0.8), they cover 90%. Student's t covers 95% in all of these.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from pipeline.results.quality import Estimate


def quantile(seeds: int) -> float:
    """Student's t that leaves 2.5% above it, for a mean over so many seeds, at least 2."""
    from scipy.special import stdtrit  # takes a third of a second, and most who import this need no interval

    return float(stdtrit(seeds - 1, 0.975))


def half_width(values: Sequence[float]) -> float | None:
    """Half of the mean's 95% interval; None below 2 values."""
    if len(values) < 2:
        return None
    return quantile(len(values)) * stdev(values) / math.sqrt(len(values))


def around(value: float, half: float | None) -> Estimate:
    """`value` ± `half`; without an interval where that is None."""
    return Estimate(
        value=value, low=None if half is None else value - half, high=None if half is None else value + half
    )


def estimate(values: Sequence[float]) -> Estimate:
    """Mean over seeds; raises ValueError without values, or with one that is no number."""
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a mean over seeds needs finite numbers, has {list(values)}")
    return around(fmean(values), half_width(values))


def paired(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate | None:
    """Mean of ours − baseline over the seeds in both, keys being seeds; None below 2 of them."""
    both = sorted(ours.keys() & baseline.keys())
    return estimate([ours[seed] - baseline[seed] for seed in both]) if len(both) > 1 else None
