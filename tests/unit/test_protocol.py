"""When rounds start to count and when they may stop."""

from dataclasses import replace

import numpy as np

from pipeline.benchmark.progress import Progress
from pipeline.benchmark.protocol import (
    Rules,
    is_settled,
    rotated,
    run_rounds,
    stopped_by,
    warmup_is_over,
)

RULES = Rules(warmup_min=2, warmup_max=10, repeats_min=10, repeats_max=60, interval_width=0.05, time_limit_s=30)


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
    assert stopped_by([[1.0] * 9], 1.0, RULES) is None  # fewer than repeats_min
    assert stopped_by([[1.0] * 10], 1.0, RULES) == "interval"
    assert stopped_by([[1.0] * 20, wide], 1.0, RULES) is None
    assert stopped_by([[1.0] * 20, wide], 31.0, RULES) == "time_limit"
    assert stopped_by([[1.0] * 2], 31.0, RULES) is None  # three are kept even so
    assert stopped_by([list(range(1, 61))], 1.0, RULES) == "repeats_max"


def test_rounds_too_few_for_an_interval_are_not_taken_for_sure():
    few = replace(RULES, repeats_min=3, repeats_max=12)
    assert stopped_by([[1.0] * 5], 1.0, few) is None
    assert stopped_by([[1.0] * 6], 1.0, few) == "interval"


def test_a_measurement_says_what_ended_it():
    def ended(**changes):
        rules = replace(RULES, warmup_min=1, warmup_max=1, **changes)
        return run_rounds(["a"], lambda name: (next(times), 0.0), lambda values: values, rules)

    times = iter([1.0] * 100)
    found = ended()
    assert (found.stopped_by, len(found.samples_ms["a"]), found.warmup_rounds) == ("interval", 10, 1)
    times = iter(float(i) for i in range(1, 100))
    assert ended(repeats_max=12).stopped_by == "repeats_max"
    found = ended(time_limit_s=1e-9)
    assert (found.stopped_by, len(found.samples_ms["a"])) == ("time_limit", 3)


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


def test_cells_of_kept_launches_say_nothing_about_how_long_the_rest_takes(monkeypatch):
    clock, said = iter([100.0, 130.0]), []
    monkeypatch.setattr("pipeline.benchmark.progress.time.monotonic", lambda: next(clock))
    progress = Progress(said.append, total=5)
    progress.skipped(2, "launch 1 of 3: kept from before")
    progress.finished("T=128")
    assert said == ["2/5  launch 1 of 3: kept from before", "3/5  T=128  ETA 01:00"]


def test_what_explains_rows_is_timed_in_the_middle_of_every_few_rounds():
    order: list[str] = []

    def timed(name):
        order.append(name)
        return float(len(order)), 0.5

    rules = replace(RULES, warmup_min=2, warmup_max=2, repeats_min=6, repeats_max=6, diagnostics_every=3)
    found = run_rounds(["a", "why", "b"], timed, lambda values: values, rules, {"why"})
    assert {name: len(series) for name, series in found.samples_ms.items()} == {"a": 6, "why": 2, "b": 6}
    assert {name: len(series) for name, series in found.device_ms.items()} == {"a": 6, "why": 2, "b": 6}
    rounds, rest = [], list(order)
    for size in (2, 2, 2, 3, 2, 2, 3, 2):  # two of warm-up, then six
        rounds.append(rest[:size])
        rest = rest[size:]
    assert not rest and [index for index, one in enumerate(rounds) if "why" in one] == [3, 6]
    assert found.samples_ms["why"] == [order.index("why") + 1.0, len(order) - order[::-1].index("why")]
    few = replace(rules, repeats_min=3, repeats_max=3)
    assert len(run_rounds(["a", "why"], timed, lambda values: values, few, {"why"}).samples_ms["why"]) == 1
    always = replace(rules, diagnostics_every=1)
    assert len(run_rounds(["a", "why"], timed, lambda values: values, always, {"why"}).samples_ms["why"]) == 6
