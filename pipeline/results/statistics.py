"""How sure a number is: the only place for summaries, bootstraps, intervals and geometric means.

Two kinds of data. Milliseconds are nested: launches hold rounds, and rounds of one launch share its luck, so resampling
draws launches first, then rounds within them; of a single launch only rounds are drawn, and its luck stays in every
number: how launches differ is not in such an interval. Scores are items in clusters: items that share a passage are no
independent draws, so clusters are the units.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Launches = Sequence[Sequence[float]]  # one inner sequence a launch, one number a round
Ends = tuple[float, float] | tuple[None, None]  # of a 95% interval; None: too few rounds for one

LEAST_ROUNDS = 6  # with fewer, even their whole range covers the median less than 95% of the time
RESAMPLES = 2000
UNPAIRED = 1_000_000  # added to a seed where the draw of another series must not be shared
RESAMPLES_AT_ONCE = 4_000_000  # indices drawn in one piece: 32 MB


@dataclass(frozen=True)
class Summary:
    """Milliseconds over the counted rounds; low and high are the median's 95% interval, None below LEAST_ROUNDS."""

    median: float
    p95: float
    low: float | None
    high: float | None
    minimum: float
    repeats: int

    @property
    def relative_width(self) -> float:
        """The interval's, as a share of the median; infinite where there is none."""
        return float("inf") if self.low is None or self.high is None else (self.high - self.low) / self.median


@functools.lru_cache(maxsize=32)
def draw(rounds: tuple[int, ...], seed: int = 0) -> NDArray[np.int64]:
    """(RESAMPLES, all rounds) positions in the launches laid end to end, for launches of so many rounds each.

    Every launch's place is taken by one drawn with replacement, and filled with rounds drawn from it. The same for
    every caller with the same launches and seed: series that were timed in alternation stay paired.
    """
    generator = np.random.default_rng(seed)
    sizes = np.asarray(rounds)
    launches = generator.integers(0, len(sizes), (RESAMPLES, len(sizes)))
    filled = np.repeat(launches, sizes, axis=1)  # (RESAMPLES, all rounds): the launch behind each place
    within = (generator.random(filled.shape) * sizes[filled]).astype(np.int64)
    positions: NDArray[np.int64] = (np.cumsum(sizes) - sizes)[filled] + within
    positions.setflags(write=False)
    return positions


def bootstrap_medians(samples: Launches, seed: int = 0) -> Floats:
    """(RESAMPLES,) medians over all rounds of resampled launches; raises ValueError without samples."""
    values = _flat(samples)
    medians: Floats = np.median(values[draw(tuple(map(len, samples)), seed)], axis=1)
    return medians


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95% of bootstrap values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def has_interval(samples: Launches) -> bool:
    """Whether there are rounds enough to say how sure their median is."""
    return sum(map(len, samples)) >= LEAST_ROUNDS


def summarise(samples: Launches) -> Summary:
    """Median, p95 and where rounds are enough the median's bootstrap interval; raises ValueError without samples."""
    values = _flat(samples)
    low, high = interval(bootstrap_medians(samples)) if has_interval(samples) else (None, None)
    return Summary(
        float(np.median(values)), float(np.percentile(values, 95)), low, high, float(values.min()), len(values)
    )


def median(samples: Launches) -> float:
    """Over all rounds of all launches; raises ValueError without samples."""
    return float(np.median(_flat(samples)))


def _flat(samples: Launches) -> Floats:
    if not samples or not all(len(launch) for launch in samples):
        raise ValueError("no samples to summarise, or a launch without any")
    return np.concatenate([np.asarray(launch, dtype=np.float64) for launch in samples])


@dataclass(frozen=True)
class Compared:
    """Milliseconds of the baseline and of another series in one cell; `paired` where their rounds alternated.

    `seed` is the cell's: one draw for all series in it.
    """

    baseline: Launches
    own: Launches
    paired: bool = True
    seed: int = 0

    @property
    def has_interval(self) -> bool:
        return has_interval(self.baseline) and has_interval(self.own)

    def log_ratios(self) -> Floats:
        """(RESAMPLES,) logarithms of t_baseline / t, launches and rounds resampled in pairs."""
        own = bootstrap_medians(self.own, self.seed if self.paired else UNPAIRED + self.seed)
        ratios: Floats = np.log(bootstrap_medians(self.baseline, self.seed) / own)
        return ratios


def speedup_interval(compared: Compared) -> Ends:
    """95% interval of t_baseline / t − 1; (None, None) below LEAST_ROUNDS."""
    if not compared.has_interval:
        return None, None
    low, high = interval(np.expm1(compared.log_ratios()))
    return low, high


def geomean(speedups: Sequence[float]) -> float:
    """Geometric mean of the ratios 1 + speedup, minus 1; raises ValueError for none."""
    if not speedups:
        raise ValueError("no speedups to average")
    return float(np.expm1(np.mean(np.log1p(speedups))))


def geomean_interval(cells: Sequence[Compared]) -> Ends:
    """95% interval of `geomean`: launches and rounds resampled together in every cell, cells by seeds of their own.

    (None, None) where a cell has fewer than LEAST_ROUNDS.
    """
    if not all(cell.has_interval for cell in cells):
        return None, None
    means = np.mean([cell.log_ratios() for cell in cells], axis=0)
    low, high = interval(np.expm1(means))
    return low, high


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
