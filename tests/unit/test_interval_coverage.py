"""How often the 95% intervals cover the truth, simulated with times such as this benchmark meets; 92 to 98% is right.

Launches differ, partly in common to both architectures; rounds are skewed with rare outliers; a slow drift hits both
architectures of a round alike.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.results.statistics import (
    Compared,
    Launches,
    geomean_interval,
    interval,
    share_interval,
    speedup_interval,
    summarise,
    summarise_steps,
)

DRAWS = 1000  # of a coverage of 95%: ±0.7 points (one deviation)
SPREADS = (0.0, 0.02, 0.05)  # deviation between launches
Floats = NDArray[np.float64]


def noise(random: np.random.Generator, *shape: int) -> Floats:
    """Logarithms of a round's own time: skewed to the right, one in twenty an outlier of some 25%."""
    skewed = 0.04 * random.standard_normal(shape) + 0.02 * random.exponential(1, shape)
    return skewed + (random.random(shape) < 0.05) * random.exponential(0.25, shape)


NOISE = np.sort(noise(np.random.default_rng(99), 500_000))


def drift(random: np.random.Generator, *shape: int) -> Floats:
    """A walk over the rounds (last axis), 2% from its start to its end."""
    return np.cumsum(random.standard_normal(shape), axis=-1) * 0.02 / np.sqrt(shape[-1])


def times(
    random: np.random.Generator, spread: float, launches: int, rounds: int, cells: int = 1, architectures: int = 2
) -> Floats:
    """(DRAWS, architectures, cells, launches, rounds) milliseconds, the truth of each a hundred times the noise's.

    Half of a launch's variance is common to the architectures; of the rest half is common to all cells.
    """
    whole = (DRAWS, architectures, cells, launches, 1)

    def part(share: float, *alike: int) -> Floats:
        shape = [1 if axis in alike else length for axis, length in enumerate(whole)]
        return spread * share**0.5 * random.standard_normal(shape)

    launch = part(0.5, 1, 2) + part(0.25, 2) + part(0.25)
    common = drift(random, DRAWS, 1, cells, launches, rounds)
    return 100 * np.exp(launch + common + noise(random, DRAWS, architectures, cells, launches, rounds))


def covered(ends: Iterable[tuple[float | None, float | None]], truths: float | Sequence[float]) -> float:
    """The share of intervals that hold their truth; none counts as none."""
    found = np.asarray(list(ends), dtype=float)
    return float(np.mean((found[:, 0] <= truths) & (truths <= found[:, 1])))


def ends_of(samples: Launches) -> tuple[float | None, float | None]:
    found = summarise(samples)
    return found.low, found.high


def true_median(common: Floats) -> float:
    """Median of rounds (rounds,) whose logarithms are `common` plus noise: bisection on the mixture."""
    low, high = common.min() - 1, common.max() + 1
    while high - low > 1e-6:
        middle = (low + high) / 2
        below = np.searchsorted(NOISE, middle - common).mean() / len(NOISE)
        low, high = (middle, high) if below < 0.5 else (low, middle)
    return float(low)


def assert_right(share: float) -> None:
    assert 0.92 <= share <= 0.98


@pytest.mark.parametrize("rounds", [3, 12])
@pytest.mark.parametrize("spread", SPREADS)
def test_a_row_and_a_speedup_over_three_launches(spread: float, rounds: int) -> None:
    drawn = times(np.random.default_rng(1), spread, 3, rounds)[:, :, 0].tolist()
    assert_right(covered((ends_of(own) for own, _ in drawn), 100 * np.exp(np.median(NOISE))))
    assert_right(covered((speedup_interval(Compared(base, own)) for base, own in drawn), 0.0))


@pytest.mark.parametrize("rounds", [6, 7, 8, 12, 40])
def test_a_row_and_a_speedup_over_the_rounds_of_one_launch(rounds: int) -> None:
    """The truth is that launch's: its own luck, and the drift that it went through."""
    random = np.random.default_rng(2)
    common = drift(random, DRAWS, 1, rounds)
    drawn = 100 * np.exp(common + noise(random, DRAWS, 2, rounds))
    truths = [100 * np.exp(true_median(one[0])) for one in common]
    assert_right(covered((ends_of([one[0].tolist()]) for one in drawn), np.asarray(truths)))
    assert_right(covered((speedup_interval(Compared([base], [own])) for base, own in drawn.tolist()), 0.0))
    apart = 100 * np.exp(noise(random, DRAWS, 2, rounds))  # without drift, which nothing cancels here
    unpaired = (speedup_interval(Compared([base], [own], paired=False)) for base, own in apart.tolist())
    assert_right(covered(unpaired, 0.0))


@pytest.mark.parametrize("spread", SPREADS)
def test_a_geometric_mean_and_a_ratio_of_speedups_over_three_launches(spread: float) -> None:
    """Speedups of 50% and 25% over one baseline: their ratio is that of the two architectures' own times."""
    drawn = times(np.random.default_rng(3), spread, 3, 4, cells=4, architectures=3)
    drawn[:, 1] /= 1.5
    drawn[:, 2] /= 1.25
    baseline, kraken, split = np.moveaxis(drawn, 1, 0).tolist()
    for slower, faster, truth in ((baseline, kraken, 0.5), (split, kraken, 0.2)):
        pairs = zip(slower, faster, strict=True)
        assert_right(covered((geomean_interval([*map(Compared, *pair)]) for pair in pairs), truth))


@pytest.mark.parametrize("spread", SPREADS)
def test_a_share_hidden_over_three_launches(spread: float) -> None:
    """Two thirds of a model's own communication, which takes 30% of its time where nothing is hidden."""
    drawn = times(np.random.default_rng(4), spread, 3, 4, architectures=3)[:, :, 0]
    drawn *= np.asarray([1.1, 1.3, 1.0])[None, :, None, None]  # as it is, nothing hidden, nothing sent
    assert_right(covered((share_interval(*series) for series in drawn.tolist()), 2 / 3))


@pytest.mark.parametrize(("rounds", "cells"), [(6, 2), (6, 8), (7, 2), (8, 4), (20, 8)])
def test_a_geometric_mean_over_the_rounds_of_one_launch(rounds: int, cells: int) -> None:
    drawn = times(np.random.default_rng(14), 0.0, 1, rounds, cells)  # of 6000 draws 93.4 to 97.4% cover
    drawn[:, 1] /= 1.3
    assert_right(covered((geomean_interval([*map(Compared, *pair)]) for pair in drawn.tolist()), 0.3))


@pytest.mark.parametrize(("launches", "rounds"), [(3, 3), (5, 3), (1, 8)])
def test_time_per_output_token_where_rounds_and_launches_drift_by_a_tenth(launches: int, rounds: int) -> None:
    random = np.random.default_rng(5)
    between = 0.1 * (launches > 1) * random.standard_normal((DRAWS, launches, 1, 1))
    between = between + 0.1 * random.standard_normal((DRAWS, launches, rounds, 1))
    drawn = 10 * np.exp(between + noise(random, DRAWS, launches, rounds, 16))
    truth = 10 * np.exp(np.median(NOISE))
    found = map(summarise_steps, drawn.tolist())
    assert_right(covered(((one.low, one.high) for one in found), truth))
    by_step = np.median(drawn[:400], axis=(1, 2)).tolist()  # steps for independent draws, as though rounds were alike
    assert covered((ends_of([one]) for one in by_step), truth) < 0.5


def test_resampling_three_launches_covers_too_little() -> None:
    """Why it is Student's t: launches, then rounds drawn again, as a bootstrap does."""
    random = np.random.default_rng(6)
    drawn = times(random, 0.05, 3, 6)[:400, 0, 0]  # (draws, launches, rounds)
    launches = random.integers(0, 3, (400, 3))
    rounds = random.integers(0, 6, (400, 3, 6))
    again = drawn[:, launches[:, :, None], rounds].reshape(400, 400, 18)
    share = covered(map(interval, np.median(again, axis=-1)), 100 * np.exp(np.median(NOISE)))
    assert share < 0.9
