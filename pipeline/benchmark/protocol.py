"""When a measurement starts to count, and when it may stop.

One round times every variant once; a sample is the maximum over ranks, in milliseconds.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.results.statistics import summarise
from pipeline.results.ttft import StoppedBy

Item = TypeVar("Item")
TimeOne = Callable[[str], tuple[float, float]]
Agree = Callable[[list[float]], list[float]]

WARMUP_SHARE = 1 / 3  # of the time limit, at most
SETTLED_WINDOW = 4  # rounds compared before and after: medians of 4 differ by chance about as much as noise does


@dataclass(frozen=True)
class Rules:
    """When to start counting and when to stop (fields as in BenchmarkConfig)."""

    warmup_min: int
    warmup_max: int
    repeats_min: int
    repeats_max: int
    interval_width: float
    time_limit_s: float
    diagnostics_every: int = 1  # 3 at most, as three rounds are kept unless repeats_min is less; 0: none


def is_settled(samples: Sequence[float], tolerance: float) -> bool:
    """Whether warm-up is over: the median of the last rounds is within `tolerance` of the ones before."""
    window = SETTLED_WINDOW
    if len(samples) < 2 * window:
        return False
    before = float(np.median(samples[-2 * window : -window]))
    after = float(np.median(samples[-window:]))
    return abs(after - before) <= tolerance * before


def warmup_is_over(warmup: Sequence[Sequence[float]], rules: Rules) -> bool:
    """`warmup` holds one series of samples per variant."""
    rounds = len(warmup[0])
    if rounds < rules.warmup_min:
        return False
    return rounds >= rules.warmup_max or all(is_settled(series, rules.interval_width) for series in warmup)


def stopped_by(series: Sequence[Sequence[float]], elapsed_s: float, rules: Rules) -> StoppedBy | None:
    """What ends the rounds: enough of them and every variant's interval narrow, the most, or the time. None: nothing.

    Even out of time, three rounds are kept, or repeats_min where that is fewer.
    """
    rounds = len(series[0])
    if rounds >= rules.repeats_min and all(
        summarise([samples]).relative_width <= rules.interval_width for samples in series
    ):
        return "interval"
    if rounds >= rules.repeats_max:
        return "repeats_max"
    return "time_limit" if rounds >= min(3, rules.repeats_min) and elapsed_s >= rules.time_limit_s else None


def rotated(names: Sequence[Item], turn: int) -> list[Item]:
    """Names in the order of round `turn`: each comes first equally often."""
    start = turn % len(names)
    return [*names[start:], *names[:start]]


@dataclass(frozen=True)
class Rounds:
    """What a row of the grid measured: milliseconds a round, host and device, by variant."""

    samples_ms: dict[str, list[float]]
    device_ms: dict[str, list[float]]
    warmup_rounds: int
    seconds: float
    stopped_by: StoppedBy


def run_rounds(
    names: Sequence[str], timed: TimeOne, agree: Agree, rules: Rules, diagnostics: Collection[str] = ()
) -> Rounds:
    """Warm up, then time every variant once a round in rotated order until the rules say enough.

    `timed(name)` gives (host, device) milliseconds of one forward; `agree(values)` the maximum over ranks of each,
    so that all ranks decide alike. Of the variants in `diagnostics`, which no rule waits for, one of
    `diagnostics_every` counted rounds has a sample, the middle one; warm-up has them where all rounds do. 0: none has.
    """
    always = [name for name in names if name not in diagnostics]
    warmup: dict[str, list[float]] = {name: [] for name in names}
    kept: dict[str, list[float]] = {name: [] for name in names}
    device: dict[str, list[float]] = {name: [] for name in names}
    begun, elapsed, warm, turn = time.monotonic(), 0.0, False, 0
    end: StoppedBy | None = None
    while end is None:
        series = kept if warm else warmup
        every = rules.diagnostics_every
        now = names if every == 1 or (every and warm and len(kept[always[0]]) % every == every // 2) else always
        turn += 1
        local = {name: timed(name) for name in rotated(now, turn)}
        *shared, elapsed = agree([*(part for name in now for part in local[name]), time.monotonic() - begun])
        for index, name in enumerate(now):
            series[name].append(shared[2 * index])
            if warm:
                device[name].append(shared[2 * index + 1])
        if warm:
            end = stopped_by([kept[name] for name in always], elapsed, rules)
        else:
            settled = warmup_is_over([warmup[name] for name in always], rules)
            warm = settled or elapsed > WARMUP_SHARE * rules.time_limit_s
    return Rounds(kept, device, len(warmup[always[0]]), elapsed, end)
