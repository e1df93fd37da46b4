"""Columns that say what a row cost and how far it is to be trusted: from samples of known numbers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipeline.benchmark import rows, text, ttft
from pipeline.benchmark.grid import Cell, Models, expand
from pipeline.benchmark.idle import Usage
from pipeline.benchmark.ranks.memory import activation_bytes, rank_bytes
from pipeline.benchmark.ranks.spec import variants
from pipeline.compose import compose, model_config
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.models import Placement, build_model, count
from pipeline.results.statistics import median
from pipeline.results.ttft import TtftRow

CELL = Cell(context=64, batch_size=2)
RATE = 2e10
MS = {"standard": 20.0, "kraken": 10.0}


@pytest.fixture
def benchmark() -> BenchmarkConfig:
    return compose(
        ["benchmark=ttft_demo", "benchmark.tp_sizes=[2]", "benchmark.architectures=[standard,kraken]"]
    ).benchmark


@pytest.fixture
def models(benchmark: BenchmarkConfig) -> Models:
    return expand(benchmark, model_config)[2][0]


def launch(models: Models, factor: float) -> dict[str, object]:
    """Ten rounds of every variant; without sums an architecture takes three quarters."""
    share = {"overlapped": 1.0, "skipped": 0.75, "blocking": 1.2}
    samples = {
        one.key: [MS[one.architecture] * share[one.mode] * factor * (1 + i / 100) for i in range(10)]
        for one in variants(models.by_architecture)
    }
    fact = {"collectives": 8, "bytes": 100, "peak_memory_bytes": 1, "ranks_agree": True}
    return {
        "samples_ms": samples,
        "device_ms": {key: [1.0] * 10 for key in samples},
        "warmup_rounds": 2,
        "stopped_by": "repeats_max",
        "details": dict.fromkeys(models.by_architecture, fact),
    }


@pytest.mark.parametrize(
    ("quota", "threads", "crowded"),
    [
        ("max 100000", [4, 2, 1], False),
        ("400000 100000", [4, 2, 1], False),
        ("250000 100000", [2, 1, 1], True),
        ("50000 100000", [1, 1, 1], True),
        (None, [4, 2, 1], False),
    ],
)
def test_a_quota_of_cpu_time_counts_as_fewer_cores(tmp_path, monkeypatch, quota, threads, crowded):
    monkeypatch.setattr(ttft.os, "sched_getaffinity", lambda _: {2, 3, 5, 7})
    monkeypatch.setattr(ttft, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    shares = [ttft.resources(compose(["cluster=local_cpu"]).cluster, tp_size) for tp_size in (1, 2, 4)]
    assert [one.threads for one in shares] == threads
    assert shares[2].oversubscribed == crowded
    assert all(core in (2, 3, 5, 7) for one in shares for cores in one.cores for core in cores)


def measured(models: Models, **changes: object) -> ttft.Measured:
    shares = ttft.resources(compose([]).cluster, 1)
    shares = replace(shares, oversubscribed=False, used_cores=2, cores_here=2)
    result = ttft.joined([launch(models, factor) for factor in (1.0, 1.1, 1.2)])
    plain = ttft.Measured(models, CELL, "loopback", 1e9, shares, result, matrix_flops_per_s=RATE)
    return replace(plain, **changes)  # type: ignore[arg-type]


def by_name(found: list[TtftRow]) -> dict[str, TtftRow]:
    return {row.architecture: row for row in found}


def test_work_is_counted_on_one_rank_and_held_against_the_baselines(benchmark: BenchmarkConfig, models: Models) -> None:
    found = by_name(rows.ttft_rows(measured(models), benchmark))
    for name, model in models.by_architecture.items():
        row = found[name]
        whole = build_model(model, Placement(0, 2), seed=None, device="meta")
        assert row.parameters == sum(one.numel() for one in whole.parameters())
        assert row.flops == count.prefill_flops(model, 2, 64, Placement(0, 2))
        seconds = median(row.samples_ms) / 1e3
        assert row.prompt_tokens_per_s == pytest.approx(2 * 64 / seconds)
        assert row.model_flops_utilisation == pytest.approx(row.flops / seconds / RATE)
        every = np.concatenate(row.samples_ms)
        assert [row.ttft_ms_p90, row.ttft_ms_p95, row.ttft_ms_p99] == pytest.approx(np.percentile(every, (90, 95, 99)))
    standard, kraken, bound = found["standard"], found["kraken"], found["no_communication"]
    assert standard.flops and kraken.flops and kraken.flops_ratio == kraken.flops / standard.flops != 1
    assert standard.flops_ratio == 1 and bound.flops == standard.flops
    more = kraken.flops / standard.flops - 1
    assert f"{more:+.1%} FLOPs" in kraken.comparability and "parameters" in kraken.comparability
    assert standard.interval_over == kraken.interval_over == "launches"
    assert [len(one) for one in kraken.samples_ms] == [10, 10, 10] and kraken.repeats == 30
    assert kraken.warmup_rounds == 6 and kraken.stopped_by == "repeats_max"


def test_energy_is_of_what_was_run_with_its_sums(benchmark: BenchmarkConfig, models: Models) -> None:
    found = by_name(rows.ttft_rows(measured(models, energy_joules={"standard": 1.5, "kraken": 1.0}), benchmark))
    assert [found[name].energy_joules for name in ("standard", "kraken", "no_communication")] == [1.5, 1.0, None]
    assert all(row.energy_joules is None for row in rows.ttft_rows(measured(models), benchmark))


def test_a_busy_machine_stands_in_rows_words_and_table(benchmark: BenchmarkConfig, models: Models) -> None:
    quiet = rows.ttft_rows(measured(models, usage=Usage(0.01, 0.0)), benchmark)
    busy = rows.ttft_rows(measured(models, usage=Usage(0.3, 0.1)), benchmark)
    unknown = rows.ttft_rows(measured(models), benchmark)
    assert [one[0].busy for one in (quiet, busy, unknown)] == [False, True, None]
    assert (busy[1].others_cpu_share, busy[1].steal_share) == (0.3, 0.1)
    assert "machine was busy" in busy[1].comparability and "busy" not in quiet[1].comparability
    assert "(machine busy: others 30%, host 10%)" in text.ttft_table(busy)
    assert "busy" not in text.ttft_table(quiet) + text.ttft_table(unknown)


def test_a_share_below_nothing_is_a_number(benchmark: BenchmarkConfig, models: Models) -> None:
    slow = measured(models)
    slow.result["samples_ms"]["kraken/overlapped"] = [[34.5 * (1 + i / 100) for i in range(10)] for _ in range(3)]
    row = by_name(rows.ttft_rows(slow, benchmark))["kraken"]
    assert row.share_hidden is not None and row.share_hidden < -2
    assert f"{row.share_hidden:.0%}" in text.ttft_table([row])


def test_what_ran_eagerly_is_not_called_a_graph(benchmark: BenchmarkConfig, models: Models) -> None:
    on_gpu = replace(measured(models).resources, device="cuda")
    parts = {name: {"kinds_ms": [{"gemm": 1.0}]} for name in models.by_architecture}
    one = measured(models, resources=on_gpu, instrumented=[parts])
    assert {row.mode for row in rows.ttft_rows(one, benchmark)} == {"cuda graph"}
    assert {row.mode for row in rows.breakdown_rows(one, benchmark)} == {"eager"}
    steps = [[[1.0, 2.0]] * 3] * 3
    decoded = ttft.Decoded(models, CELL, "loopback", on_gpu, dict.fromkeys(models.by_architecture, steps))
    assert {row.mode for row in rows.decode_rows(decoded, benchmark)} == {"eager"}


def test_output_tokens_are_summarised_over_launches_with_rounds_within(
    benchmark: BenchmarkConfig, models: Models
) -> None:
    steps = [[[10.0 * launch, 12.0 * launch]] * 3 for launch in (1.0, 1.1, 1.3)]  # launches × rounds × steps
    twice = [[[2 * step for step in one] for one in rounds] for rounds in steps]
    shares = measured(models).resources
    decoded = ttft.Decoded(models, CELL, "loopback", shares, {"standard": twice, "kraken": steps})
    standard, kraken = rows.decode_rows(decoded, benchmark)
    assert kraken.ms_per_token_median == pytest.approx(11 * (1.0 * 1.1 * 1.3) ** (1 / 3))
    assert kraken.interval_over == "launches" and kraken.repeats == 9
    assert kraken.ms_per_token_low is not None and kraken.ms_per_token_high is not None
    assert kraken.ms_per_token_low < 10 < 14 < kraken.ms_per_token_high  # three launches that differ say little
    assert [kraken.ms_per_token_p90, kraken.ms_per_token_p95, kraken.ms_per_token_p99] == pytest.approx(
        np.percentile(np.ravel(steps), (90, 95, 99))
    )
    assert (standard.speedup, kraken.speedup) == (pytest.approx(0), pytest.approx(1))
    assert kraken.tokens_per_s == pytest.approx(2e3 / np.mean(steps))
    uneven = [
        [[factor * step for step in one] for one in rounds] for factor, rounds in zip((2, 3, 4), steps, strict=True)
    ]
    decoded.rounds["standard"] = uneven
    kraken = rows.decode_rows(decoded, benchmark)[1]
    ends = np.expm1(stats.ttest_1samp(np.log([2, 3, 4]), 0).confidence_interval(0.95))
    assert kraken.speedup == pytest.approx(24 ** (1 / 3) - 1)
    assert (kraken.speedup_low, kraken.speedup_high) == pytest.approx(tuple(ends))
    assert f"{ends[0]:+.1%} to {ends[1]:+.1%}" in text.decode_table([kraken])


def test_the_share_of_its_own_communication_that_a_row_hides_has_an_interval(
    benchmark: BenchmarkConfig, models: Models
) -> None:
    one = measured(models)
    one.result["samples_ms"]["kraken/overlapped"][2] = [11.0] * 10
    row = by_name(rows.ttft_rows(one, benchmark))["kraken"]
    own, waited, alone = (
        np.median(samples, axis=1) for samples in (row.samples_ms, row.blocking_samples_ms, row.compute_samples_ms)
    )
    ends = stats.ttest_1samp((waited - own) / (waited - alone), 0).confidence_interval(0.95)
    assert (row.own_share_low, row.own_share_high) == pytest.approx(tuple(ends))
    assert row.own_share_low and row.own_share_hidden and row.own_share_high
    assert row.own_share_low < row.own_share_hidden < row.own_share_high
    one.result["samples_ms"]["kraken/skipped"][0] = [90.0] * 10  # a launch that had nothing to hide
    row = by_name(rows.ttft_rows(one, benchmark))["kraken"]
    assert (row.own_share_low, row.own_share_high) == (None, None)
    short = replace(one, result=ttft.joined([launch(models, factor) for factor in (1.0, 1.1)]))
    assert by_name(rows.ttft_rows(short, benchmark))["kraken"].own_share_low is None


def test_graphs_of_all_variants_hold_memory_at_once(benchmark: BenchmarkConfig, models: Models) -> None:
    eager = benchmark.model_copy(update={"cuda_graph": False})
    graphs = rank_bytes(benchmark, models, "cuda", False) - rank_bytes(eager, models, "cuda", False)
    longest = Cell(max(benchmark.contexts), max(benchmark.batch_sizes))

    def of(name: str) -> int:
        return activation_bytes(models.by_architecture[name], longest, Placement(0, 2), benchmark.dtype)

    assert graphs == 2 * of("standard") + 3 * of("kraken")  # as built and without sums; Kraken also awaiting each
    assert rank_bytes(benchmark, models, "cpu", False) == rank_bytes(eager, models, "cpu", False)
