"""Standard errors and differences against formulas and simulations written another way."""

import itertools
import math
import statistics as stdlib

import numpy as np
import pytest

from pipeline.results import scores
from pipeline.results.scores import Outcomes


def outcomes(values: list[float], clusters: list[int] | None = None) -> Outcomes:
    return Outcomes(np.array(values, dtype=float), np.array(clusters or range(len(values)), dtype=np.int64))


def test_standard_error_is_the_harness_formula_for_single_items() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    expected = stdlib.stdev(values) / math.sqrt(len(values))
    assert scores.standard_error(outcomes(values)) == pytest.approx(expected)


def test_copies_of_items_add_no_certainty() -> None:
    """Ten copies of each item as one cluster are no more than the item."""
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    copied = outcomes([value for value in values for _ in range(10)], [i for i in range(5) for _ in range(10)])
    assert scores.standard_error(copied) == pytest.approx(scores.standard_error(outcomes(values)))


def test_a_single_cluster_has_no_standard_error() -> None:
    assert math.isnan(scores.standard_error(outcomes([1.0, 0.0], [0, 0])))


def test_bootstrap_agrees_with_the_formula() -> None:
    generator = np.random.default_rng(1)
    data = outcomes((generator.random(400) < 0.3).astype(float).tolist())
    assert scores.bootstrap_error(data, 4000, 7) == pytest.approx(scores.standard_error(data), rel=0.06)


def test_mean_of_tasks_weighs_tasks_alike() -> None:
    generator = np.random.default_rng(2)
    tasks = [outcomes((generator.random(size) < 0.5).astype(float).tolist()) for size in (20, 500)]
    mean, error = scores.mean_of_tasks(tasks, 4000, 7)
    assert mean == pytest.approx((tasks[0].mean + tasks[1].mean) / 2)
    by_formula = math.sqrt(sum(scores.standard_error(task) ** 2 for task in tasks)) / 2
    assert error == pytest.approx(by_formula, rel=0.08)


def test_equal_results_cannot_be_told_apart() -> None:
    data = outcomes([1.0, 0.0, 1.0])
    same = scores.paired_difference(data, data, 500, 1)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert same.is_noise


def test_p_value_equals_all_sign_flips() -> None:
    """Against every one of the 2^8 flips, enumerated."""
    gaps = [1, 1, 1, 0, 1, -1, 1, 1]
    ours, theirs = [1.0 if gap > 0 else 0.0 for gap in gaps], [1.0 if gap < 0 else 0.0 for gap in gaps]
    flips = [sum(s * g for s, g in zip(signs, gaps, strict=True)) for signs in itertools.product((1, -1), repeat=8)]
    exact = sum(abs(total) >= abs(sum(gaps)) for total in flips) / len(flips)
    found = scores.paired_difference(outcomes(ours), outcomes(theirs), 20000, 3)
    assert found.p_value == pytest.approx(exact, abs=0.01)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        ours = (generator.random(150) < 0.6).astype(float).tolist()
        theirs = (generator.random(150) < 0.5).astype(float).tolist()
        found = scores.paired_difference(outcomes(ours), outcomes(theirs), 300, trial)
        covered += found.low <= 0.1 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_large_difference_is_told() -> None:
    generator = np.random.default_rng(6)
    ours = (generator.random(300) < 0.8).astype(float).tolist()
    theirs = (generator.random(300) < 0.5).astype(float).tolist()
    assert not scores.paired_difference(outcomes(ours), outcomes(theirs), 1000, 1).is_noise


def test_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        scores.paired_difference(outcomes([1.0, 0.0]), outcomes([1.0]), 10, 1)
