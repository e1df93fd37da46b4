"""Summaries, intervals and geometric means of milliseconds against independent arithmetic and known distributions."""

import math

import numpy as np
import pytest

from pipeline.results.statistics import (
    Compared,
    draw,
    geomean,
    geomean_interval,
    median,
    speedup_interval,
    summarise,
)


def test_median_and_p95_are_those_of_the_sorted_samples() -> None:
    found = summarise([[5.0, 1.0], [4.0, 2.0, 3.0]])
    assert (found.median, found.minimum, found.repeats) == (3.0, 1.0, 5)
    assert found.p95 == pytest.approx(4.8)  # linear between 4 and 5 at 0.95 · 4 = 3.8
    assert median([[5.0, 1.0], [3.0]]) == 3.0


def test_the_interval_covers_the_true_median_about_95_percent_of_the_time() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = summarise([list(random.lognormal(0.0, 0.3, 40))])
        covered += found.low <= 1.0 <= found.high  # the median of a lognormal with mu 0
    assert 180 <= covered <= 200


def test_below_six_rounds_there_is_no_interval() -> None:
    few, enough = [[5.0, 6.0, 7.0, 5.5, 6.5]], [[5.0, 6.0, 7.0, 5.5, 6.5, 6.2]]
    assert (summarise(few).low, summarise(few).high, summarise(few).relative_width) == (None, None, math.inf)
    assert summarise(enough).low is not None
    assert speedup_interval(Compared(few, few)) == (None, None)
    assert geomean_interval([Compared(enough, enough), Compared(few, few)]) == (None, None)
    random = np.random.default_rng(5)
    found = [summarise([random.lognormal(0, 0.1, 6).tolist()]) for _ in range(400)]
    assert sum(one.low <= 1 <= one.high for one in found) >= 360  # type: ignore[operator]


def test_rounds_of_one_launch_share_its_luck() -> None:
    """Where launches differ, many rounds of few launches are no certainty: the interval covers all the same."""
    random = np.random.default_rng(1)
    nested, flat = 0, 0
    for _ in range(150):
        launches = [list(random.normal(100 + random.normal(0, 5), 1, 20)) for _ in range(10)]
        found = summarise(launches)
        nested += found.low <= 100 <= found.high
        as_one = summarise([[value for launch in launches for value in launch]])
        flat += as_one.low <= 100 <= as_one.high
    assert nested >= 130
    assert flat < 100  # what taking all rounds for independent would give


def test_the_interval_narrows_with_more_rounds() -> None:
    random = np.random.default_rng(1)
    few, many = random.normal(100, 5, 12), random.normal(100, 5, 400)
    assert summarise([list(many)]).relative_width < 0.5 * summarise([list(few)]).relative_width


def test_constant_samples_have_no_width() -> None:
    found = summarise([[7.0] * 10])
    assert (found.low, found.high, found.relative_width) == (7.0, 7.0, 0.0)


@pytest.mark.parametrize("samples", [[], [[]], [[1.0], []]])
def test_no_samples_are_refused(samples: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise(samples)


def test_a_draw_takes_launches_first_then_rounds_within_them() -> None:
    drawn = draw((3, 5))
    assert drawn.shape == (2000, 8) and drawn.min() == 0 and drawn.max() == 7
    first, second = drawn[:, :3] < 3, drawn[:, 3:] < 3  # whether a place holds the first launch
    assert (first.all(axis=1) | ~first.any(axis=1)).all()  # one launch a place, never a mixture
    assert 0.45 < first[:, 0].mean() < 0.55 and 0.45 < second[:, 0].mean() < 0.55
    assert (draw((3, 5)) == drawn).all() and (draw((3, 5), seed=1) != drawn).any()


def test_pairing_removes_drift_that_hits_all_alike() -> None:
    random = np.random.default_rng(2)
    drift = 1 + random.random((2, 15))  # a machine that slows down and speeds up twofold
    low, high = speedup_interval(Compared((150 * drift).tolist(), (100 * drift).tolist()))
    assert low == pytest.approx(0.5) and high == pytest.approx(0.5)
    apart = speedup_interval(Compared((150 * drift).tolist(), (100 * drift).tolist(), paired=False))
    assert apart[1] - apart[0] > 0.1


def test_geometric_mean_is_the_root_of_the_product() -> None:
    assert geomean([1.0, 0.0, -0.5]) == pytest.approx(0.0)
    assert geomean([0.1, 0.3]) == pytest.approx(math.sqrt(1.1 * 1.3) - 1)
    with pytest.raises(ValueError, match="no speedups"):
        geomean([])


def test_the_geometric_means_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    covered, trials = 0, 150
    for _ in range(trials):
        cells = []
        for index, true in enumerate((1.2, 1.5, 0.9)):
            drift = random.lognormal(0, 0.03, 25)
            baseline = 100 * true * drift * random.lognormal(0, 0.05, 25)
            own = 100 * drift * random.lognormal(0, 0.05, 25)
            cells.append(Compared([baseline.tolist()], [own.tolist()], seed=index))
        low, high = geomean_interval(cells)
        covered += low <= (1.2 * 1.5 * 0.9) ** (1 / 3) - 1 <= high
    assert 0.86 <= covered / trials <= 0.99


def test_more_cells_make_the_geometric_mean_surer() -> None:
    random = np.random.default_rng(4)

    def cell(seed: int) -> Compared:
        return Compared([random.normal(120, 10, 20).tolist()], [random.normal(100, 10, 20).tolist()], seed=seed)

    def width(cells: list[Compared]) -> float:
        low, high = geomean_interval(cells)
        return high - low

    assert width([cell(seed) for seed in range(16)]) < 0.5 * width([cell(0)])
