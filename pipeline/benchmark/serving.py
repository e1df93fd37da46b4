"""Rows of clients served at a time: percentiles, rates, and goodput at a limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.benchmark.rows import about_row
from pipeline.benchmark.ttft import Served
from pipeline.config.benchmark import BASELINE, BenchmarkConfig
from pipeline.results.cell import Launches
from pipeline.results.statistics import LEAST_LAUNCHES, student, summarise
from pipeline.results.ttft import ServingRow

LIMIT_FACTOR = 2  # of the baseline's TTFT with one client


@dataclass(frozen=True)
class Limit:
    """A TTFT in milliseconds, and where it comes from in words."""

    ms: float
    source: str


def serving_rows(served: Sequence[Served], benchmark: BenchmarkConfig) -> list[ServingRow]:
    """A row an architecture and number of clients."""
    rows = []
    for one in served:
        limit = _limit(one, served, benchmark)
        rows += [_row(one, benchmark, name, one.answers[name], limit) for name in one.models.by_architecture]
    return rows


def _limit(one: Served, served: Sequence[Served], benchmark: BenchmarkConfig) -> Limit:
    if benchmark.ttft_limit_ms is not None:
        return Limit(benchmark.ttft_limit_ms, "set by benchmark.ttft_limit_ms")
    alone = next(other for other in served if other.is_beside(one) and other.cell.concurrency == 1)
    baseline = summarise([answer["ttft_ms"] for answer in alone.answers[BASELINE]]).p50
    return Limit(LIMIT_FACTOR * baseline, f"{LIMIT_FACTOR} times {BASELINE}'s median with one client in the same cell")


def _row(
    one: Served, benchmark: BenchmarkConfig, name: str, answers: Sequence[Mapping[str, Any]], limit: Limit
) -> ServingRow:
    ttft: Launches = [answer["ttft_ms"] for answer in answers]
    per_token: Launches = [answer["ms_per_token"] for answer in answers]
    asked: list[int] = answers[0]["new_tokens"]
    seconds = np.asarray([answer["seconds"] for answer in answers])  # (launches,)
    kept = np.asarray([sum(ms <= limit.ms for ms in launch) for launch in ttft])  # (launches,)
    goodputs = kept / seconds
    low, high = student(goodputs) if len(goodputs) >= LEAST_LAUNCHES else (None, None)
    first, later = summarise(ttft), summarise(per_token)
    per_s = float(np.mean(1 / seconds))
    return ServingRow(
        **dict(about_row(one, benchmark, name)),
        concurrency=one.cell.concurrency,
        requests=first.repeats,
        new_tokens=benchmark.decode_tokens,
        ttft_ms_p50=first.p50,
        ttft_ms_p90=first.p90,
        ttft_ms_p95=first.p95,
        ttft_ms_p99=first.p99,
        ms_per_token_p50=later.p50,
        ms_per_token_p90=later.p90,
        ms_per_token_p95=later.p95,
        ms_per_token_p99=later.p99,
        requests_per_s=len(asked) * per_s,
        output_tokens_per_s=(len(asked) + sum(asked)) * per_s,
        prompt_tokens_per_s=len(asked) * one.cell.context * per_s,
        ttft_limit_ms=limit.ms,
        ttft_limit_from=limit.source,
        share_within_limit=float(kept.sum()) / first.repeats,
        goodput_per_s=float(goodputs.mean()),
        goodput_low=None if low is None else max(0.0, low),
        goodput_high=high,
        interval_over=None if low is None else "launches",
        samples_ms=ttft,
        ms_per_token_samples=per_token,
        new_tokens_by_request=asked,
        seconds=seconds.tolist(),
    )
