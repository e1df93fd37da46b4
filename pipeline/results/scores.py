"""How sure a score is: means over items in clusters, their errors, and paired differences between two models.

Items that share a passage are no independent draws, so clusters are the units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.results.statistics import Floats, interval

RESAMPLES_AT_ONCE = 4_000_000  # indices drawn in one piece: 32 MB


@dataclass(frozen=True)
class Outcomes:
    """One task's result for each item, between 0 and 1, and which cluster the item belongs to."""

    values: Floats  # (n,)
    clusters: NDArray[np.int64]  # (n,), 0 … number of clusters - 1

    @property
    def mean(self) -> float:
        return float(self.values.mean())


@dataclass(frozen=True)
class Difference:
    """Ours minus the baseline's on the same items, with a 95% interval and a two-sided p-value."""

    difference: float
    standard_error: float
    low: float
    high: float
    p_value: float

    @property
    def is_noise(self) -> bool:
        """Whether the difference cannot be told from noise: in the interval's reach or likely by chance."""
        return self.low <= 0 <= self.high or self.p_value >= 0.05


def cluster_totals(outcomes: Outcomes) -> tuple[Floats, Floats]:
    """Sum of values and number of items per cluster, each (clusters,)."""
    size = int(outcomes.clusters.max()) + 1
    sums = np.bincount(outcomes.clusters, weights=outcomes.values, minlength=size).astype(np.float64)
    counts = np.bincount(outcomes.clusters, minlength=size).astype(np.float64)
    return sums, counts


def standard_error(outcomes: Outcomes) -> float:
    """Analytic standard error of the mean with clusters as units.

    With one item a cluster it is the harness' own: sample deviation over the root of n.
    """
    return ratio_error(*cluster_totals(outcomes))


def ratio_error(totals: Floats, weights: Floats) -> float:
    """Standard error of sum(totals) / sum(weights) over units, (units,) each; NaN for a single unit."""
    units = len(totals)
    if units < 2:
        return float("nan")
    residuals = totals - totals.sum() / weights.sum() * weights
    return float(np.sqrt(units / (units - 1) * (residuals**2).sum()) / weights.sum())


def bootstrap_means(outcomes: Outcomes, iterations: int, seed: int) -> Floats:
    """Means of `iterations` resamples of whole clusters, (iterations,)."""
    sums, counts = cluster_totals(outcomes)
    generator = np.random.default_rng(seed)
    units = len(sums)
    means = np.empty(iterations)
    step = max(1, RESAMPLES_AT_ONCE // units)
    for start in range(0, iterations, step):
        drawn = generator.integers(0, units, size=(min(step, iterations - start), units))
        means[start : start + len(drawn)] = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means


def bootstrap_error(outcomes: Outcomes, iterations: int, seed: int) -> float:
    """Standard deviation of the resampled means."""
    return float(bootstrap_means(outcomes, iterations, seed).std(ddof=1)) if iterations > 1 else float("nan")


def mean_of_tasks(tasks: Sequence[Outcomes], iterations: int, seed: int) -> tuple[float, float]:
    """Unweighted mean over tasks and its bootstrap standard error; tasks are resampled independently."""
    resampled = np.mean([bootstrap_means(task, iterations, seed + i) for i, task in enumerate(tasks)], axis=0)
    return float(np.mean([task.mean for task in tasks])), float(resampled.std(ddof=1))


def paired_difference(ours: Outcomes, baseline: Outcomes, iterations: int, seed: int) -> Difference:
    """Ours minus baseline on the same items; raises ValueError where the items cannot be the same."""
    return paired_mean_difference([ours], [baseline], iterations, seed)


def paired_mean_difference(
    ours: Sequence[Outcomes], baseline: Sequence[Outcomes], iterations: int, seed: int
) -> Difference:
    """Difference of the unweighted means over tasks: bootstrap interval, and the p-value of flipping signs.

    Under no difference it is as likely that a cluster favours one model as the other, so flipping the
    sign of whole clusters at random shows what chance alone does.
    """
    gaps = [_gap(mine, theirs) for mine, theirs in zip(ours, baseline, strict=True)]
    observed = float(np.mean([gap.mean for gap in gaps]))
    resampled = np.mean([bootstrap_means(gap, iterations, seed + i) for i, gap in enumerate(gaps)], axis=0)
    flipped = np.mean([_flip_means(gap, iterations, seed + 1000 + i) for i, gap in enumerate(gaps)], axis=0)
    extreme = int((np.abs(flipped) >= abs(observed) - 1e-12).sum())
    low, high = interval(resampled)
    return Difference(
        observed,
        float(resampled.std(ddof=1)),
        low,
        high,
        (extreme + 1) / (iterations + 1),
    )


def _gap(ours: Outcomes, baseline: Outcomes) -> Outcomes:
    if len(ours.values) != len(baseline.values) or (ours.clusters != baseline.clusters).any():
        raise ValueError("paired differences need the same items in the same order")
    return Outcomes(ours.values - baseline.values, ours.clusters)


def _flip_means(gap: Outcomes, iterations: int, seed: int) -> Floats:
    sums, counts = cluster_totals(gap)
    generator = np.random.default_rng(seed)
    means = np.empty(iterations)
    step = max(1, RESAMPLES_AT_ONCE // len(sums))
    for start in range(0, iterations, step):
        signs = generator.integers(0, 2, size=(min(step, iterations - start), len(sums))) * 2.0 - 1.0
        means[start : start + len(signs)] = signs @ sums / counts.sum()
    return means
