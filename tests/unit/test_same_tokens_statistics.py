"""Intervals over seeds and fitted laws: what they cover in simulated studies, known fits, and what never enters."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pipeline.results import law, seeds
from pipeline.results.law import Point
from pipeline.results.quality import Estimate

STUDIES = 2000  # a coverage of 95% then has a standard error of 0.5%
Floats = NDArray[np.float64]


def covers(estimate: Estimate | None, truth: float) -> bool:
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high


def coverages(once: Callable[[np.random.Generator], tuple[bool, bool]]) -> Floats:
    """(2,) shares of simulated studies whose two intervals hold the truth."""
    generator = np.random.default_rng(11)
    return np.asarray([once(generator) for _ in range(STUDIES)], dtype=float).mean(axis=0)


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
def test_same_tokens_interval_of_a_mean_is_scipys(n_seeds: int) -> None:
    values = np.random.default_rng(n_seeds).normal(4, 0.02, n_seeds)
    found = seeds.estimate(values.tolist())
    assert (found.low, found.high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert found.value == pytest.approx(values.mean())


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_same_tokens_intervals_cover_at_three_seeds_whatever_the_variances(factor: float) -> None:
    """Of a mean, and of a paired difference of arms whose scatter differs, seeds being partly common to both."""

    def once(generator: np.random.Generator) -> tuple[bool, bool]:
        common = generator.normal(0, 0.02, 3)
        ours = 4.3 + common + generator.normal(0, 0.01 * factor, 3)
        baseline = 4.2 + common + generator.normal(0, 0.01, 3)
        difference = seeds.paired(dict(enumerate(ours.tolist())), dict(enumerate(baseline.tolist())))
        return covers(seeds.estimate(ours.tolist()), 4.3), covers(difference, 0.1)

    hits = coverages(once)
    assert (hits > 0.92).all() and (hits < 0.98).all(), hits


def test_same_tokens_pairing_takes_out_what_a_seed_does_to_both() -> None:
    baseline = {1: 4.0, 2: 4.2, 3: 4.4}
    difference = seeds.paired({seed: loss + 0.1 for seed, loss in baseline.items()}, baseline)
    assert difference is not None and (difference.low, difference.high) == pytest.approx((0.1, 0.1))


def test_same_tokens_differences_use_the_seeds_of_both_alone() -> None:
    assert seeds.paired({1: 4.0, 2: 4.5, 9: 99.0}, {2: 4.0, 1: 4.0, 7: -99.0}) == seeds.estimate([0.0, 0.5])
    assert seeds.paired({1: 4.0, 2: 4.0}, {2: 4.0, 3: 4.0}) is None
    assert seeds.paired({}, {}) is None


def test_same_tokens_one_seed_has_no_interval_and_none_no_mean() -> None:
    assert seeds.estimate([4.0]) == Estimate(value=4.0, low=None, high=None)
    for values in ([], [4.0, float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="finite numbers"):
            seeds.estimate(values)


def points(xs: list[float], losses: Floats) -> list[Point]:
    """losses: (seeds, x)."""
    return [Point(x, seed, float(row[i])) for seed, row in enumerate(losses) for i, x in enumerate(xs)]


def test_same_tokens_a_law_without_scatter_is_found_exactly() -> None:
    xs = [1e6, 2e6, 5e6]
    found = law.fit(points(xs, np.tile(np.array([30 * x**-0.14 for x in xs]), (3, 1))))
    assert found is not None and found.points == 3
    for estimate, truth in ((found.scale, 30), (found.exponent, 0.14)):
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((truth, truth, truth))
    assert found.worst_residual_nats == pytest.approx(0, abs=1e-9)


def test_same_tokens_a_law_is_the_line_of_least_squares_and_its_worst_miss_is_told() -> None:
    xs = [1e5, 2e5, 4e5]
    losses = np.array([[5.0, 4.6, 4.5], [5.1, 4.7, 4.5], [5.0, 4.5, 4.4]])
    found = law.fit(points(xs, losses))
    slope, intercept = np.polyfit(np.tile(np.log(xs), 3), np.log(losses).ravel(), 1)
    own = [-np.polyfit(np.log(xs), np.log(row), 1)[0] for row in losses]
    assert found is not None
    assert (found.exponent.value, found.scale.value) == pytest.approx((-slope, math.exp(intercept)))
    # where every seed ended everywhere, the interval is Student's t over the seeds' own fits
    assert found.exponent.model_dump() == pytest.approx(seeds.estimate(own).model_dump())
    misses = losses.mean(0) - np.exp(intercept + slope * np.log(xs))
    assert found.worst_residual_nats == pytest.approx(np.abs(misses).max())


@pytest.mark.parametrize(("shared", "lacks_one"), [(0.0, False), (0.8, False), (0.8, True)])
def test_same_tokens_law_intervals_cover_at_three_seeds_and_three_counts(shared: float, lacks_one: bool) -> None:
    """`shared`: correlation of a seed's runs through their trunk. One run may have diverged."""
    xs = [2e5, 4e5, 8e5]

    def once(generator: np.random.Generator) -> tuple[bool, bool]:
        trunk, own = generator.normal(size=(3, 1)), generator.normal(size=(3, 3))
        noise = 0.004 * (math.sqrt(shared) * trunk + math.sqrt(1 - shared) * own)
        drawn = points(xs, np.exp(math.log(60) - 0.2 * np.log(xs) + noise))
        found = law.fit(drawn[:-1] if lacks_one else drawn)
        assert found is not None
        return covers(found.exponent, 0.2), covers(found.scale, 60)

    hits = coverages(once)
    assert (hits > 0.92).all() and (hits < 0.98).all(), hits


def test_same_tokens_laws_need_two_x_and_their_intervals_two_seeds() -> None:
    assert law.fit([]) is None
    assert law.fit([Point(1e5, seed, 4.0 + seed / 10) for seed in range(3)]) is None
    one = law.fit([Point(1e5, 0, 5.0), Point(2e5, 0, 4.5)])
    assert one is not None and one.exponent.value == pytest.approx(math.log(5 / 4.5) / math.log(2))
    assert one.exponent.low is one.scale.high is None
    # without seed 0 a single x is left: nothing says how sure the line is
    lone = law.fit([Point(1e5, 0, 5.0), Point(2e5, 0, 4.5), Point(2e5, 1, 4.6)])
    assert lone is not None and lone.exponent.low is None


def test_same_tokens_a_hopeless_scale_is_still_a_finite_number() -> None:
    found = law.fit(points([1e11, 1.001e11], np.array([[4.0, 4.1], [4.0, 3.7], [4.1, 4.0]])))
    assert found is not None and found.scale.high is not None and math.isfinite(found.scale.high)
