"""The projection against schedules and sums worked out by hand."""

import math
from dataclasses import replace

import pytest

from pipeline.compose import compose, model_config
from pipeline.config import ModelConfig
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.reference import PublishedTtft
from pipeline.models import count
from pipeline.models.architectures import block_of, names
from pipeline.models.timed import timed_model
from pipeline.models.trace import trace
from pipeline.projection.calibration import calibrate, fitted_sizes
from pipeline.projection.grid import project
from pipeline.projection.hardware import FITTED, Hardware
from pipeline.projection.prefill import prefill
from pipeline.projection.text import text
from pipeline.projection.timeline import Task, schedule
from pipeline.results.statistics import geomean

DEVICE = Hardware(
    name="round",
    matmul_flops=1e12,
    memory_bandwidth=1e11,
    link_bandwidth=1e10,
    link_topology="switched",
    matmul_efficiency=0.5,
    bandwidth_efficiency=0.5,
    kernel_launch_s=1e-6,
    link_efficiency=0.5,
    link_latency_s=1e-5,
    link_latency_per_rank_s=1e-6,
)
ARCHITECTURES = names()


def small(architecture: str, n_layer: int = 3) -> ModelConfig:
    ways = 1 if block_of(architecture).ways == "none" else 4
    return ModelConfig(
        name=architecture,
        architecture=architecture,
        n_layer=n_layer,
        n_head=4,
        n_embd=64,
        n_ways=ways,
        ffn_expansion=2 if architecture == "kraken" else 4,
        block_size=128,
        vocab_size=512,
    )


def compute(name: str, seconds: float, *after: int) -> Task:
    return Task(name, "gemm", "compute", seconds, after)


def transfer(seconds: float, *after: int) -> Task:
    return Task("all_reduce", "all_reduce", "communication", seconds, after)


def test_blocking_collectives_add_up():
    timeline = schedule([compute("a", 2), transfer(3, 0), compute("b", 4, 1), transfer(1, 2), compute("c", 1, 3)])
    assert [(s.start_s, s.end_s) for s in timeline.spans] == [(0, 2), (2, 5), (5, 9), (9, 10), (10, 11)]
    assert timeline.seconds == 11
    assert timeline.exposed_seconds == 4
    assert timeline.communication_seconds == 4


def test_a_collective_hides_under_work_that_does_not_need_it():
    # x ready at 2; its sum travels 2..5 while b runs 2..6; c needs both
    timeline = schedule([compute("x", 2), transfer(3, 0), compute("b", 4), compute("c", 1, 1)])
    assert timeline.seconds == 7
    assert timeline.exposed_seconds == 0
    parts = timeline.breakdown()
    assert parts["overlapped_gemm"] == 3  # of b's 4 seconds
    assert parts["gemm"] == 4
    assert parts["all_reduce"] == 0


def test_only_what_does_not_fit_is_exposed():
    timeline = schedule([compute("x", 2), transfer(5, 0), compute("b", 4), compute("c", 1, 1)])
    assert timeline.seconds == 8  # c waits from 6 to 7
    assert timeline.exposed_seconds == 1
    assert sum(timeline.breakdown().values()) == pytest.approx(timeline.seconds)


def test_collectives_queue_behind_one_another():
    timeline = schedule([compute("x", 1), transfer(5, 0), compute("y", 1), transfer(5, 2), compute("z", 1, 3)])
    assert timeline.spans[3].start_s == 6
    assert timeline.seconds == 12


def test_a_task_cannot_wait_for_a_later_one():
    with pytest.raises(ValueError, match="only earlier tasks"):
        schedule([compute("a", 1, 1), compute("b", 1)])


def test_kernels_follow_the_roofline():
    assert DEVICE.kernel_seconds(5e11, 0) == pytest.approx(1 + 1e-6)
    assert DEVICE.kernel_seconds(0, 5e10) == pytest.approx(1 + 1e-6)
    assert DEVICE.kernel_seconds(5e11, 1e11) == pytest.approx(2 + 1e-6)  # memory is slower here


def test_all_reduces_by_hand():
    # one shot: 14 us + 3 · 1e6 / 5e9; two shots: 28 us + 2 · 3/4 · 1e6 / 5e9
    assert DEVICE.all_reduce_seconds(1e6, 4) == pytest.approx(28e-6 + 300e-6)
    assert DEVICE.all_reduce_seconds(1e3, 4) == pytest.approx(14e-6 + 0.6e-6)
    ring = replace(DEVICE, link_topology="ring")
    assert ring.all_reduce_seconds(1e6, 4) == pytest.approx(6 * 10e-6 + 300e-6)
    assert DEVICE.all_reduce_seconds(1e6, 1) == 0


def test_kernels_by_hand():
    traced = trace(model_config("standard_1_3b"), 4, 1, 128)
    first = {kernel.name: kernel for kernel in reversed(traced.kernels)}  # of each name the first
    assert first["qkv"].flops == 2 * 128 * 2048 * 3 * 512
    assert first["qkv"].elements == 128 * 2048 + 2048 * 1536 + 128 * 1536
    assert first["down"].flops == 2 * 128 * 2048 * 2048
    assert first["attention"].flops == 4 * 512 * 128 * 128 / 2
    assert first["ln_1"].elements == 2 * 128 * 2048
    assert first["add"].elements == 3 * 128 * 2048
    assert [start.elements for start in traced.starts] == [128 * 2048] * 46 + [2048] * 2  # the last layer: one token
    assert traced.kernels[-1].flops == 2 * 2048 * 51200 / 4  # a rank's share of the vocabulary


def test_the_kernels_of_a_kraken_layer_are_the_papers_plugin():
    """A copy, the sum's start, attention under it, the wait, a copy (paper section 4)."""
    layer = [step for step in trace(small("kraken"), 4, 1, 64).steps if getattr(step, "layer", 1) == 1]
    words = [getattr(step, "name", type(step).__name__) for step in layer[1:]]  # the first adds up layer 0's output
    attention = ["ln_1", "qkv", "attention", "out"]
    ffn = ["add", "ln_2", "up", "gelu", "down"]
    assert words[: 2 + 4 + 2 + 5] == ["copy_in", "Start", *attention, "Wait", "copy_out", *ffn]


def test_the_second_chunk_attends_to_the_first():
    assert trace(small("standard_split"), 2, 1, 1) == trace(small("standard"), 2, 1, 1)  # one token is no two chunks
    whole, halves = trace(small("standard"), 1, 1, 64), trace(small("standard_split"), 1, 1, 64)
    assert halves.flops == whole.flops
    attentions = [kernel.flops for kernel in halves.kernels if kernel.name == "attention"][:2]
    assert attentions == [4 * 64 * 32 * 16, 4 * 64 * 32 * (32 + 16)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flops_agree_with_the_counts(architecture):
    """On a device whose only cost is arithmetic, one FLOP a second, time is FLOPs."""
    arithmetic = replace(
        DEVICE, matmul_flops=1.0, matmul_efficiency=1.0, memory_bandwidth=math.inf, kernel_launch_s=0.0
    )
    model = small(architecture)
    expected = 64 * (2 * count.matrix_parameters(model) + count.attention_flops(model, 64) // 2) + 2 * 64 * 512
    ffn = 2 * 64 * model.ffn_expansion * 64 * (4 if architecture == "kraken" else 1)  # weights of a layer
    late = 2 if architecture == "ladder" else 1  # FFNs that no attention reads: they run for the last token alone
    expected -= 2 * 63 * late * ffn
    if architecture == "kraken":  # and so does W_concat
        expected -= 2 * 63 * 4 * 64 * 64
    assert prefill(model, arithmetic, 64, 1).timeline.seconds == pytest.approx(expected, rel=1e-12)
    assert count.prefill_flops(model, 1, 64) == expected


@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_collectives_agree_with_the_counts(architecture, tp_size):
    model = small(architecture)
    run = prefill(model, DEVICE, 64, tp_size)
    if tp_size == 1:
        assert run.collectives == 0
        assert run.timeline.exposed_seconds == pytest.approx(0)
        return
    assert run.collectives == count.collectives(model).total
    assert run.collective_bytes == count.prefill_collective_bytes(model, 1, 64)
    assert sum(run.timeline.breakdown().values()) == pytest.approx(run.timeline.seconds)


def exposed_all_reduces(architecture: str, device: Hardware, short: int) -> float:
    """Exposed communication without the logits' gather and `short` sums of one token, in units of one all-reduce."""
    run = prefill(small(architecture), device, 64, 4)
    gather = device.all_gather_seconds(2 * 512 / 4, 4)
    one = device.all_reduce_seconds(2 * 64 * 64, 4)
    return (run.timeline.exposed_seconds - gather - short * device.all_reduce_seconds(2 * 64, 4)) / one


def test_what_blocks_and_what_hides():
    """A link fast enough to fit under half a layer: only true dependencies are exposed."""
    slow_kernels = replace(DEVICE, kernel_launch_s=1e-3)
    assert exposed_all_reduces("standard", slow_kernels, 2) == pytest.approx(4)
    assert exposed_all_reduces("parallel", slow_kernels, 1) == pytest.approx(2)
    assert exposed_all_reduces("desync", slow_kernels, 1) == pytest.approx(2)
    assert exposed_all_reduces("kraken", slow_kernels, 1) == pytest.approx(0, abs=1e-9)  # W_concat's
    assert exposed_all_reduces("ladder", slow_kernels, 1) == pytest.approx(0, abs=1e-9)  # the last FFN's
    assert exposed_all_reduces("parallel_track", slow_kernels, 1) == pytest.approx(2)
    assert exposed_all_reduces("standard_split", slow_kernels, 2) == pytest.approx(0, abs=1e-9)  # the last layer's


def test_free_compute_hides_nothing():
    free = replace(DEVICE, kernel_launch_s=0.0, matmul_flops=1e30, memory_bandwidth=1e30)
    assert exposed_all_reduces("standard", free, 2) == pytest.approx(4)
    assert exposed_all_reduces("ladder", free, 3) == pytest.approx(3)
    assert exposed_all_reduces("kraken", free, 2) == pytest.approx(1)


def test_the_bound_is_the_standard_model_without_collectives():
    run = prefill(small("standard"), DEVICE, 64, 4, communicate=False)
    assert run.timeline.exposed_seconds == pytest.approx(0)
    assert run.timeline.seconds == pytest.approx(prefill(small("standard"), DEVICE, 64, 4).timeline.compute_seconds)


def test_geomean_of_the_papers_own_rows():
    rows = compose(["benchmark=ttft_paper"]).reference.ttft
    assert len(rows) == 20
    # 0.356 in the paper, from unrounded times
    speedups = [row.standard_ms / row.kraken_ms - 1 for row in rows]
    assert geomean(speedups) == pytest.approx(0.3605, abs=2e-4)
    assert min(speedups) == pytest.approx(0.109, abs=0.015)
    assert max(speedups) == pytest.approx(0.637, abs=0.015)


def lookup(name: str) -> ModelConfig:
    return model_config(name).model_copy(update={"n_layer": 2})


@pytest.fixture(scope="module")
def paper():
    return compose(["benchmark=ttft_paper"])


def test_a_fit_finds_the_device_that_made_the_times(paper):
    """Times made by a known device, handed back as published: the held-out ones come out within 2%."""
    shapes = [shape.model_copy(update={"n_layer": None}) for shape in paper.benchmark.shapes]
    start = Hardware.from_config(paper.hardware)
    truth = start.with_values(
        {
            "matmul_efficiency": 0.55,
            "bandwidth_efficiency": 0.6,
            "kernel_launch_s": 9e-6,
            "link_efficiency": 0.4,
            "link_latency_s": 2e-5,
            "link_latency_per_rank_s": 1e-6,
        }
    )
    benchmark = paper.benchmark.model_copy(update={"shapes": shapes})
    published = [_made(row, benchmark, truth) for row in paper.reference.ttft]
    reference = paper.reference.model_copy(update={"ttft": published})
    fit = calibrate(start, reference, benchmark, lookup)
    assert fit is not None
    assert fit.mean_absolute_error < 0.02
    assert set(fit.values) == set(FITTED)
    assert fit.values["matmul_efficiency"] == pytest.approx(0.55, rel=0.1)
    assert {size for _, size, _, _ in fit.rows} == {"1.3B", "13B", "175B"}
    assert not any(architecture == "kraken" for architecture, *_ in fit.rows)
    fitted = start.with_values(fit.values)
    for row in published:
        model = lookup(f"kraken_{row.size.lower().replace('.', '_')}_{row.tp_size}way")
        assert prefill(model, fitted, row.context, row.tp_size).timeline.seconds * 1e3 == pytest.approx(
            row.kraken_ms, rel=0.04
        )


def _made(row: PublishedTtft, benchmark: BenchmarkConfig, device: Hardware) -> PublishedTtft:
    (shape,) = (shape for shape in benchmark.shapes if shape.size == row.size)
    times = {
        f"{name}_ms": prefill(
            timed_model(benchmark, shape, name, row.tp_size, lookup), device, row.context, row.tp_size
        ).timeline.seconds
        * 1e3
        for name in ("standard", "parallel", "kraken")
    }
    return row.model_copy(update=times)


def test_every_second_size_is_fitted(paper):
    assert fitted_sizes(paper.reference.ttft) == {"1.3B", "13B", "175B"}


def test_too_few_rows_fit_nothing(paper):
    few = paper.reference.model_copy(update={"ttft": paper.reference.ttft[:2]})
    assert calibrate(Hardware.from_config(paper.hardware), few, paper.benchmark, lookup) is None


@pytest.mark.parametrize(
    ("hardware", "fitted"),
    [
        ("a100_40gb_nvswitch", ["link_efficiency", "link_latency_s", "link_latency_per_rank_s"]),
        ("h100_sxm", []),
    ],
)
def test_one_rank_meets_the_link_that_the_projection_uses(monkeypatch, tmp_path, hardware, fitted):
    """The seconds that the stage hands over, and what its result says of them."""
    from pipeline.benchmark import one_rank, result
    from pipeline.experiment.stages import BY_NAME
    from pipeline.experiment.work import Work
    from stages import benchmark_ttft, project_ttft

    said = {}
    monkeypatch.setattr(one_rank, "check", lambda *given: None)
    monkeypatch.setattr(one_rank, "measure", lambda *given: said.update(seconds=given[3]))
    monkeypatch.setattr(result, "one_rank_result", lambda *given: said.update(link_model=given[3]))
    config = compose(["benchmark=ttft_one_rank", f"hardware={hardware}", f"paths.results={tmp_path}"])
    benchmark_ttft._one_rank(Work(BY_NAME["benchmark_ttft"], config), {})
    projected, _, _ = project_ttft.calibrated(config)
    for size in (1e3, 1e6, 1e8):
        assert said["seconds"](size, 4) == projected.all_reduce_seconds(size, 4)
    unfitted = Hardware.from_config(config.hardware).all_reduce_seconds(1e6, 4)
    assert (said["seconds"](1e6, 4) != unfitted) == bool(fitted)
    assert said["link_model"]["fitted_to_published_times"] == fitted
    assert said["link_model"]["link_latency_s"] == projected.link_latency_s
    assert said["link_model"]["hardware"] == hardware


def test_rows_of_a_grid(paper):
    benchmark = paper.benchmark.model_copy(update={"shapes": paper.benchmark.shapes[:1], "contexts": [128]})
    result = project(benchmark, DEVICE, lookup, paper.reference)
    architectures = [*benchmark.architectures, "no_communication"]
    assert [row.architecture for row in result.rows] == 2 * architectures  # for two numbers of ranks
    for row in result.rows:
        assert (row.kind, row.fitted, row.size, row.n_layer) == ("projected", False, "1.3B", 2)
        assert (row.published_ms is None) == (row.architecture not in ("standard", "parallel", "kraken"))
        assert row.breakdown_ms.total == pytest.approx(row.projected_ms)
    standard, bound = result.rows[0], result.rows[len(benchmark.architectures)]
    assert (standard.published_ms, standard.speedup) == (3.7, 0)
    assert bound.share_hidden == pytest.approx(1)
    assert result.published_geomean_speedup is None  # two of twenty rows are no headline
    assert result.errors["fitted"] is None
    assert result.errors["held_out"].rows == 6
    assert {drawing.architecture for drawing in result.timelines} == set(architectures)
    (rival,) = [one for one in result.headline.all if (one.architecture, one.against) == ("kraken", "standard_split")]
    times = {(row.architecture, row.tp_size): row.projected_ms for row in result.rows}
    ratios = [times["standard_split", tp_size] / times["kraken", tp_size] for tp_size in benchmark.tp_sizes]
    assert 1 + rival.geomean_speedup == pytest.approx(math.prod(ratios) ** (1 / len(ratios)))
    assert f"kraken over standard_split, geometric mean of 2 rows: {rival.geomean_speedup:+.1%}" in text(result)


def test_another_device_has_no_published_times(paper):
    benchmark = paper.benchmark.model_copy(update={"shapes": paper.benchmark.shapes[:1], "contexts": [128]})
    result = project(benchmark, DEVICE, lookup)
    assert all(row.published_ms is None for row in result.rows)
    assert {entry.kind for entry in result.headline.all} == {"projected"}


def test_unknown_values_are_refused():
    with pytest.raises(KeyError, match="memory_bandwidth"):
        DEVICE.with_values({"memory_bandwidth": 1.0})
