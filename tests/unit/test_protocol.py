"""The statistics of the TTFT protocol against independent arithmetic and known distributions."""

import numpy as np
import pytest

from pipeline.benchmark.progress import Progress
from pipeline.benchmark.protocol import (
    Rules,
    is_settled,
    may_stop,
    ratio_interval,
    rotated,
    summarise,
    warmup_is_over,
)

RULES = Rules(warmup_min=2, warmup_max=10, repeats_min=10, repeats_max=60, interval_width=0.05, time_limit_s=30)


def test_median_and_p95_are_those_of_the_sorted_samples():
    statistics = summarise([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (statistics.median, statistics.minimum, statistics.repeats) == (3.0, 1.0, 5)
    assert statistics.p95 == pytest.approx(4.8)  # linear between 4 and 5 at 0.95 · 4 = 3.8


def test_the_interval_covers_the_true_median_about_95_percent_of_the_time():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        statistics = summarise(list(random.lognormal(0.0, 0.3, 40)))
        covered += statistics.low <= 1.0 <= statistics.high  # the median of a lognormal with mu 0
    assert 180 <= covered <= 200


def test_the_interval_narrows_with_more_rounds():
    random = np.random.default_rng(1)
    few, many = random.normal(100, 5, 12), random.normal(100, 5, 400)
    assert summarise(list(many)).relative_width < 0.5 * summarise(list(few)).relative_width


def test_constant_samples_have_no_width():
    statistics = summarise([7.0] * 10)
    assert (statistics.low, statistics.high, statistics.relative_width) == (7.0, 7.0, 0.0)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_pairing_removes_drift_that_hits_all_alike():
    random = np.random.default_rng(2)
    drift = 1 + random.random(30)  # a machine that slows down and speeds up twofold
    low, high = ratio_interval(list(150 * drift), list(100 * drift))
    assert low == pytest.approx(1.5) and high == pytest.approx(1.5)


def test_warmup_ends_when_the_median_settles():
    assert not is_settled([10.0] * 7, 0.05)  # too few to compare four with four
    assert is_settled([30.0, *[10.0] * 8], 0.05)
    assert not is_settled([30, 28, 26, 24, 20, 18, 16, 14], 0.05)
    assert not warmup_is_over([[10.0]], RULES)
    assert warmup_is_over([[10.0] * 8, [20.0] * 8], RULES)
    assert not warmup_is_over([[10.0] * 8, [30, 28, 26, 24, 20, 18, 16, 14]], RULES)
    assert warmup_is_over([[10.0] * 10, [30, 28, 26, 24, 20, 18, 16, 14, 12, 10]], RULES)  # at the latest


def test_rounds_stop_when_every_interval_is_narrow():
    wide = list(np.random.default_rng(3).lognormal(0, 1, 20))
    assert not may_stop([[1.0] * 9], 1.0, RULES)  # fewer than repeats_min
    assert may_stop([[1.0] * 10], 1.0, RULES)
    assert not may_stop([[1.0] * 20, wide], 1.0, RULES)
    assert may_stop([[1.0] * 20, wide], 31.0, RULES)  # out of time
    assert not may_stop([[1.0] * 2], 31.0, RULES)  # two rounds have no interval
    assert may_stop([list(range(1, 61))], 1.0, RULES)  # the most rounds


def test_every_variant_comes_first_equally_often():
    names = ["a", "b", "c"]
    firsts = [rotated(names, turn)[0] for turn in range(9)]
    assert all(firsts.count(name) == 3 for name in names)
    assert all(sorted(rotated(names, turn)) == names for turn in range(9))


def test_progress_counts_cells_and_says_how_long_the_rest_takes(monkeypatch):
    clock, said = iter([100.0, 130.0, 220.0, 230.0]), []
    monkeypatch.setattr("pipeline.benchmark.progress.time.monotonic", lambda: next(clock))
    progress = Progress(said.append, total=3)
    for cell in ("T=128", "T=256", "T=512"):
        progress.finished(cell)
    assert said == ["1/3  T=128  ETA 01:00", "2/3  T=256  ETA 01:00", "3/3  T=512"]
