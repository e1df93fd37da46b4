"""Summaries, intervals and geometric means of milliseconds against independent arithmetic.

How often intervals cover the truth is in test_interval_coverage.py.
"""

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.results.statistics import (
    Compared,
    by_round,
    geomean,
    geomean_interval,
    has_interval,
    median,
    speedup_interval,
    summarise,
    summarise_steps,
)

FEW = [[5.0, 6.0, 7.0, 5.5, 6.5]]
ENOUGH = [[5.0, 6.0, 7.0, 5.5, 6.5, 6.2]]
THREE = [[10.0, 11.0, 30.0], [12.0, 13.0, 12.5], [9.0, 9.5, 9.2, 9.1]]


def lognormal(seed: int, *shape: int, sigma: float = 0.1) -> list[list[float]]:
    return (100 * np.random.default_rng(seed).lognormal(0, sigma, shape)).tolist()


def test_of_one_launch_it_is_the_median_and_percentiles_are_linear_between_rounds() -> None:
    found = summarise([[5.0, 1.0, 4.0, 2.0, 3.0]])
    assert (found.median, found.p50, found.minimum, found.repeats) == (3.0, 3.0, 1.0, 5)
    assert found.p95 == pytest.approx(4.8)  # linear between 4 and 5 at 0.95 · 4 = 3.8
    assert (found.p90, found.p99) == (pytest.approx(4.6), pytest.approx(4.96))


def test_of_launches_it_is_the_geometric_mean_of_their_medians() -> None:
    found = summarise(THREE)
    medians = [11.0, 12.5, 9.15]
    assert found.median == median(THREE) == pytest.approx(stats.gmean(medians))
    assert (found.minimum, found.repeats) == (9.0, 10)
    assert found.p50 == np.median([value for launch in THREE for value in launch])


def test_with_three_launches_the_interval_is_students_over_their_logarithms() -> None:
    found = summarise(THREE)
    by_scipy = stats.ttest_1samp(np.log([11.0, 12.5, 9.15]), 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(math.exp(by_scipy.low)), pytest.approx(math.exp(by_scipy.high)))
    assert found.over == "launches"


def test_the_interval_of_one_launch_lies_between_order_statistics() -> None:
    """Of six rounds their range covers 31/32 and the next pair 25/32: 95% lies a tenth of the way by cover."""
    found = summarise([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    share = (31 / 32 - 0.95) / (31 / 32 - 25 / 32)
    part = 5 * share / (1 + 4 * share)
    assert (found.low, found.high, found.over) == (pytest.approx(1 + part), pytest.approx(6 - part), "rounds")
    exact = stats.quantile_test(np.arange(1.0, 42.0), q=0.0, p=0.5).confidence_interval(0.95)  # 41 rounds
    many = summarise([list(np.arange(1.0, 42.0))])
    assert exact.low <= many.low <= exact.low + 1 and exact.high - 1 <= many.high <= exact.high


@pytest.mark.parametrize(
    ("samples", "over"),
    [
        (FEW, None),
        (ENOUGH, "rounds"),
        ([FEW[0] * 9, FEW[0] * 9], None),  # two launches say next to nothing of a third
        (THREE, "launches"),
        ([[1.0], [2.0], [3.0]], "launches"),
    ],
)
def test_what_an_interval_is_over(samples: list[list[float]], over: str | None) -> None:
    found = summarise(samples)
    assert (found.over, has_interval(samples)) == (over, over is not None)
    assert (found.low is None, found.high is None, math.isinf(found.relative_width)) == (over is None,) * 3
    assert (speedup_interval(Compared(samples, samples)) == (None, None)) == (over is None)


def test_an_interval_holds_its_estimate() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        launches = int(random.choice([1, 3, 4, 12]))
        rounds = int(random.integers(6, 20))
        cells = [
            Compared(*(lognormal(int(random.integers(1 << 30)), launches, rounds, sigma=0.3) for _ in range(2)))
            for _ in range(int(random.integers(1, 5)))
        ]
        own = summarise(cells[0].own)
        assert own.low <= own.median <= own.high
        low, high = geomean_interval(cells)
        estimate = geomean([median(cell.baseline) / median(cell.own) - 1 for cell in cells])
        assert low - 1e-12 <= estimate <= high + 1e-12


def test_a_cell_without_an_interval_leaves_the_mean_without_one() -> None:
    few, enough = Compared(FEW, FEW), Compared(ENOUGH, ENOUGH)
    three, four = (Compared(lognormal(0, n, 5), lognormal(1, n, 5)) for n in (3, 4))
    assert geomean_interval([enough, enough]) != (None, None) != geomean_interval([three, three])
    for cells in ([enough, few], [enough, three], [three, four], []):
        assert geomean_interval(cells) == (None, None)


def test_a_mean_over_one_cell_is_the_speedup_of_that_cell() -> None:
    for launches in (1, 3):
        cell = Compared(lognormal(0, launches, 9), lognormal(1, launches, 9))
        assert geomean_interval([cell]) == speedup_interval(cell) != (None, None)


def test_a_mean_over_cells_pairs_launches_which_ran_through_all_of_them() -> None:
    base, own = (np.log(np.asarray([lognormal(seed + n, 3, 5) for n in range(4)])) for seed in (0, 10))
    ratios = (np.median(base, -1) - np.median(own, -1)).mean(axis=0)  # (launches,)
    expected = np.expm1(stats.ttest_1samp(ratios, 0).confidence_interval(0.95))
    found = geomean_interval([Compared(b, o) for b, o in zip(np.exp(base).tolist(), np.exp(own).tolist(), strict=True)])
    assert found == pytest.approx(tuple(expected))


@pytest.mark.parametrize("launches", [1, 3])
def test_pairing_removes_drift_that_hits_all_alike(launches: int) -> None:
    drift = 1 + np.random.default_rng(2).random((launches, 15))  # a machine that slows down and speeds up twofold
    low, high = speedup_interval(Compared((150 * drift).tolist(), (100 * drift).tolist()))
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)
    apart = speedup_interval(Compared((150 * drift).tolist(), (100 * drift).tolist(), paired=False))
    assert apart[1] - apart[0] > 0.1


def test_series_that_never_met_are_held_apart_as_welch_does() -> None:
    base, own = lognormal(0, 3, 5), lognormal(1, 5, 5)
    assert speedup_interval(Compared(base, own, paired=False)) == (None, None)  # not equally many launches
    own = own[:3]
    medians = [np.log([np.median(launch) for launch in series]) for series in (base, own)]
    expected = np.expm1(stats.ttest_ind(*medians, equal_var=False).confidence_interval(0.95))
    assert speedup_interval(Compared(base, own, paired=False)) == pytest.approx(tuple(expected))


def test_paired_series_of_other_lengths_are_refused() -> None:
    for base, own in ((ENOUGH, FEW), (THREE, ENOUGH)):
        with pytest.raises(ValueError, match="same number of launches"):
            Compared(base, own)


def test_steps_of_a_round_count_once() -> None:
    """Steps share their round's luck: the interval is of rounds, the percentiles of all steps."""
    steps = [[[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]], [[2.0, 3.0, 4.0]], [[5.0, 6.0, 70.0]]]
    assert by_round(steps) == [[2.0, 4.0], [3.0], [6.0]]
    found, rounds = summarise_steps(steps), summarise([[2.0, 4.0], [3.0], [6.0]])
    assert (found.median, found.low, found.high, found.repeats) == (rounds.median, rounds.low, rounds.high, 4)
    every = [step for launch in steps for one in launch for step in one]
    assert (found.p50, found.p99, found.minimum) == (np.median(every), np.percentile(every, 99), 1.0)
    assert summarise_steps([[[1.0, 1.1] * 50] * 5]).over is None  # five rounds of a hundred steps
    with pytest.raises(ValueError, match="without steps"):
        by_round([[[]]])


def test_the_interval_narrows_with_more_rounds() -> None:
    assert summarise(lognormal(1, 1, 400)).relative_width < 0.5 * summarise(lognormal(1, 1, 12)).relative_width


@pytest.mark.parametrize("samples", [[[7.0] * 10], [[7.0] * 3] * 3])
def test_constant_samples_have_no_width(samples: list[list[float]]) -> None:
    found = summarise(samples)
    assert found.low == pytest.approx(7) and found.relative_width == pytest.approx(0, abs=1e-12)
    assert speedup_interval(Compared(samples, samples)) == (0.0, 0.0)
    assert geomean_interval([Compared(samples, samples)] * 3) == (0.0, 0.0)


@pytest.mark.parametrize("samples", [[], [[]], [[1.0], []]])
def test_no_samples_are_refused(samples: list[list[float]]) -> None:
    for make in (summarise, median):
        with pytest.raises(ValueError, match="no samples"):
            make(samples)


def test_geometric_mean_is_the_root_of_the_product() -> None:
    assert geomean([1.0, 0.0, -0.5]) == pytest.approx(0.0)
    assert geomean([0.1, 0.3]) == pytest.approx(math.sqrt(1.1 * 1.3) - 1)
    with pytest.raises(ValueError, match="no speedups"):
        geomean([])


def test_more_cells_make_the_geometric_mean_surer() -> None:
    def width(cells: int) -> float:
        every = [Compared(lognormal(seed, 1, 20), lognormal(seed + 100, 1, 20)) for seed in range(cells)]
        low, high = geomean_interval(every)
        return high - low

    assert width(16) < 0.5 * width(1)
