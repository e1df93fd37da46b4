"""How sure a number of milliseconds is: the only place for its summaries, intervals and geometric means.

Samples are nested: launches hold rounds, and rounds of one launch share its luck (where memory lies, which cores
neighbours use). So the launch is the unit: of three and more, each gives one number, and a 95% interval is Student's t
over their logarithms. Resampling three launches covers the truth 84% of the time. Two launches give no interval.
Of a single launch the rounds are the units, at least six: such an interval is of that launch alone, and how launches
differ is not in it. The median's then is that of order statistics, interpolated (Hettmansperger and Sheather), as
rounds are skewed and a median's bootstrap covers less than 92% of some numbers of them.

The estimate is the geometric mean over launches of each one's median: it is the middle of its interval, and the ratio
of two such estimates is the middle of the ratio's. A median over all rounds, or of the launches' medians, can lie
outside of the interval, and ratios of them belong to no launch. Of one launch it is the median.

tests/unit/test_interval_coverage.py simulates how often each interval covers the truth: 93 to 97%.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Launches = Sequence[Sequence[float]]  # one inner sequence a launch, one number a round
Over = Literal["launches", "rounds"]
Ends = tuple[float, float] | tuple[None, None]  # of a 95% interval; None: too few launches or rounds for one

LEAST_LAUNCHES = 3  # of two, Student's t is 12.7 deviations wide: nothing to read
LEAST_ROUNDS = 6  # of one launch: even the whole range of five covers the median less than 95% of the time
CONFIDENCE = 0.95
OF_ERRORS = 0.7  # confidence of the interval that a standard error is read from, where several are added up


@dataclass(frozen=True)
class Summary:
    """Milliseconds over the counted rounds.

    `median` is the geometric mean over launches of each one's median; low and high are its 95% interval over `over`,
    all three None where there is none. Percentiles, minimum and `repeats` are of all rounds together.
    """

    median: float
    low: float | None
    high: float | None
    over: Over | None
    p50: float
    p90: float
    p95: float
    p99: float
    minimum: float
    repeats: int

    @property
    def relative_width(self) -> float:
        """The interval's, as a share of the median; infinite where there is none."""
        return float("inf") if self.low is None or self.high is None else (self.high - self.low) / self.median


def interval_over(samples: Launches) -> Over | None:
    """What an interval of these samples is over; None: there are too few for one."""
    if len(samples) >= LEAST_LAUNCHES:
        return "launches"
    return "rounds" if len(samples) == 1 and len(samples[0]) >= LEAST_ROUNDS else None


def has_interval(samples: Launches) -> bool:
    """Whether there are launches, or rounds of a single one, enough to say how sure their median is."""
    return interval_over(samples) is not None


def summarise(samples: Launches) -> Summary:
    """Estimate, interval and percentiles; raises ValueError without samples."""
    return _summary(samples, [value for launch in samples for value in launch])


def summarise_steps(samples: Sequence[Launches]) -> Summary:
    """The same of launches × rounds × steps: steps of one round share its luck, so each round gives its median.

    Percentiles and the minimum are of all steps, `repeats` counts rounds. Raises ValueError without samples.
    """
    return _summary(by_round(samples), [step for launch in samples for one in launch for step in one])


def by_round(samples: Sequence[Launches]) -> list[list[float]]:
    """Launches × rounds: the median over the steps of each round; raises ValueError where a round has none."""
    if not all(len(one) for launch in samples for one in launch):
        raise ValueError("no samples to summarise: a round without steps")
    return [[float(np.median(one)) for one in launch] for launch in samples]


def _summary(units: Launches, every: Sequence[float]) -> Summary:
    logs = launch_logs(units)
    over = interval_over(units)
    estimate = median(units)
    low: float | None = None
    high: float | None = None
    if over == "launches":
        ends = np.exp(student(logs))
        low, high = min(float(ends[0]), estimate), max(float(ends[1]), estimate)  # equal launches round off
    elif over == "rounds":
        low, high = median_interval(np.asarray(units[0], dtype=np.float64))
    p50, p90, p95, p99 = (float(value) for value in np.percentile(every, (50, 90, 95, 99)))
    repeats = sum(map(len, units))
    return Summary(estimate, low, high, over, p50, p90, p95, p99, float(min(every)), repeats)


def median(samples: Launches) -> float:
    """Geometric mean over launches of each one's median; raises ValueError without samples."""
    if len(samples) == 1 and len(samples[0]):
        return float(np.median(samples[0]))
    return math.exp(launch_logs(samples).mean())


def launch_logs(samples: Launches) -> Floats:
    """(launches,) the logarithm of each one's median; raises ValueError without samples."""
    if not samples or not all(len(launch) for launch in samples):
        raise ValueError("no samples to summarise, or a launch without any")
    logs: Floats = np.log([np.median(launch) for launch in samples])
    return logs


@functools.lru_cache(maxsize=256)
def quantile(freedom: float, confidence: float = CONFIDENCE) -> float:
    """Student's t with that much freedom: ± this many standard errors hold `confidence`."""
    from scipy.special import stdtrit  # takes a third of a second, and most who import this need no interval

    return float(stdtrit(freedom, (1 + confidence) / 2))


def student(values: Floats) -> tuple[float, float]:
    """95% interval of the mean of at least two independent values."""
    half = quantile(len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


@functools.cache
def _order(rounds: int, confidence: float) -> tuple[int, float]:
    """How deep the median's interval begins: order statistic k (from 1), and the part of the way on to k + 1.

    (x_k, x_{n+1-k}) covers the median with 1 − 2·P(Binomial(n, 1/2) < k); the part in between is Hettmansperger's and
    Sheather's, close for every symmetric distribution and good for skewed ones.
    """

    def cover(k: int) -> float:
        return 1 - 2 * sum(math.comb(rounds, i) for i in range(k)) * 0.5**rounds

    k = max(k for k in range(1, rounds // 2 + 1) if cover(k) >= confidence)
    share = (cover(k) - confidence) / (cover(k) - cover(k + 1))
    return k, (rounds - k) * share / (k + (rounds - 2 * k) * share)


def median_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the median of at least LEAST_ROUNDS independent values, which may be skewed."""
    k, part = _order(len(values), confidence)
    ordered = np.sort(values)
    low = (1 - part) * ordered[k - 1] + part * ordered[k]
    high = (1 - part) * ordered[-k] + part * ordered[-k - 1]
    return float(low), float(high)


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95% of resampled values."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def share_interval(own: Launches, blocking: Launches, compute: Launches) -> Ends:
    """95% interval of (t_blocking − t) / (t_blocking − t_compute): Student's t over the launches' own shares.

    (None, None) with fewer than LEAST_LAUNCHES of each, or where a launch had nothing to hide.
    """
    series = (own, blocking, compute)
    if min(map(len, series)) < LEAST_LAUNCHES or len({*map(len, series)}) > 1:
        return None, None
    times, waited, alone = (np.exp(launch_logs(one)) for one in series)  # (launches,) each
    if np.any(waited <= alone):
        return None, None
    low, high = student((waited - times) / (waited - alone))
    estimate = (median(blocking) - median(own)) / (median(blocking) - median(compute))  # rarely beside the shares' mean
    return min(low, estimate), max(high, estimate)


@dataclass(frozen=True)
class Compared:
    """Milliseconds of the baseline and of another series in one cell.

    `paired` where they shared launches and their rounds alternated: each launch, or each round of a single one, then
    has a ratio of its own, and drift that hits both cancels. Raises ValueError where paired series differ in length.
    """

    baseline: Launches
    own: Launches
    paired: bool = True

    def __post_init__(self) -> None:
        alike = len(self.baseline) == len(self.own) and (
            len(self.own) != 1 or len(self.baseline[0]) == len(self.own[0])
        )
        if self.paired and not alike:
            raise ValueError("paired series need the same number of launches, and of rounds in a single one")

    @property
    def over(self) -> Over | None:
        """What an interval of their ratio is over; None: there is none."""
        baseline, own = interval_over(self.baseline), interval_over(self.own)
        return own if baseline == own else None

    @property
    def log_ratio(self) -> float:
        """Logarithm of t_baseline / t."""
        return math.log(median(self.baseline) / median(self.own))


def speedup_interval(compared: Compared) -> Ends:
    """95% interval of t_baseline / t − 1; (None, None) where launches or rounds are too few."""
    return geomean_interval([compared])


def geomean(speedups: Sequence[float]) -> float:
    """Geometric mean of the ratios 1 + speedup, minus 1; raises ValueError for none."""
    if not speedups:
        raise ValueError("no speedups to average")
    return float(np.expm1(np.mean(np.log1p(speedups))))


def geomean_interval(cells: Sequence[Compared]) -> Ends:
    """95% interval of `geomean` over cells.

    Over launches: a launch runs through all cells, so its mean over them is one number. Over rounds: cells do not
    depend on each other, and their errors add up. (None, None) where a cell has too few of either, or where cells
    differ in their number of launches.
    """
    launches = {len(series) for cell in cells for series in (cell.baseline, cell.own)}
    if len(launches) != 1 or any(cell.over is None for cell in cells):
        return None, None
    paired = all(cell.paired for cell in cells)
    if launches.pop() > 1:
        baseline, own = (
            np.mean([launch_logs(series) for series in each], axis=0)
            for each in zip(*((cell.baseline, cell.own) for cell in cells), strict=True)
        )  # (launches,) each
        ends = student(baseline - own) if paired else _of_launches(baseline, own)
    else:
        ends = _of_rounds(cells)
    low, high = ends
    return math.expm1(low), math.expm1(high)


def _of_launches(baseline: Floats, own: Floats) -> tuple[float, float]:
    """Of the difference of two means over launches of their own, (launches,) each."""
    errors = [float(logs.std(ddof=1)) / math.sqrt(len(logs)) for logs in (baseline, own)]
    return _welch(float(baseline.mean() - own.mean()), errors, [len(baseline) - 1, len(own) - 1])


def _of_rounds(cells: Sequence[Compared]) -> tuple[float, float]:
    """Of the mean log ratio over cells of a single launch."""
    estimate = sum(cell.log_ratio for cell in cells) / len(cells)
    independent = [series for cell in cells for series in _log_rounds(cell)]
    if len(independent) == 1:
        low, high = median_interval(independent[0])  # of the rounds' ratios: rarely beside the ratio of the medians
        return min(low, estimate), max(high, estimate)
    errors = []
    for logs in independent:
        low, high = median_interval(logs, OF_ERRORS)
        errors.append((high - low) / 2 / quantile(len(logs) - 1, OF_ERRORS) / len(cells))
    return _welch(estimate, errors, [len(logs) - 1 for logs in independent])


def _log_rounds(cell: Compared) -> list[Floats]:
    """(rounds,) log ratios of paired rounds; else the logarithms of either series."""
    baseline, own = np.log(cell.baseline[0]), np.log(cell.own[0])
    return [baseline - own] if cell.paired else [baseline, own]


def _welch(estimate: float, errors: Sequence[float], freedom: Sequence[int]) -> tuple[float, float]:
    """95% interval around a sum of independent parts by their standard errors (Welch and Satterthwaite)."""
    variances = np.square(errors)
    total = float(variances.sum())
    if total == 0:
        return estimate, estimate
    together = total**2 / float((variances**2 / freedom).sum())
    half = quantile(together) * math.sqrt(total)
    return estimate - half, estimate + half
