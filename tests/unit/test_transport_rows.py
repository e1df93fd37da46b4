"""What a row says of the wire and of the delay of its link, and what a benchmark of wires may ask for."""

from dataclasses import replace

import pytest

from pipeline.benchmark import rows, ttft
from pipeline.benchmark.grid import Cell, expand, over_wires
from pipeline.benchmark.ranks import links
from pipeline.benchmark.ranks.memory import rank_bytes
from pipeline.benchmark.ranks.spec import variants
from pipeline.benchmark.wire_errors import compared_models
from pipeline.compose import compose, model_config
from pipeline.config.benchmark import architecture_of, unwired, wire_of
from pipeline.errors import ConfigError, MissingRequirementError

BASE = ["benchmark=ttft_demo", "benchmark.tp_sizes=[2]", "benchmark.architectures=[standard,kraken]"]
WIRED = [*BASE, "benchmark.wires=[float32,int8]"]


def rows_of(link, overrides=WIRED):
    benchmark = compose(overrides).benchmark
    (models,) = over_wires(expand(benchmark, model_config), benchmark.wires)[2]
    timed = [variant.key for variant in variants(models.by_architecture)]
    result = {
        "samples_ms": {key: [[10.0 + len(key)] * 10] for key in timed},
        "device_ms": {},
        "warmup_rounds": 1,
        "details": {
            name: {"collectives": 8, "bytes": 1000 if wire_of(name) == "float32" else 258, "peak_memory_bytes": 1}
            for name in models.by_architecture
        },
    }
    shares = replace(ttft.resources(compose([]).cluster, 2), oversubscribed=False)
    measured = ttft.Measured(models, Cell(64, 1), link, 1e9, shares, result)
    return {row.architecture: row for row in rows.ttft_rows(measured, benchmark)}


def test_labels_of_a_wire_are_timed_beside_their_own():
    found = rows_of("1gbit")
    assert list(found) == ["standard", "kraken", "standard_int8", "kraken_int8", "no_communication"]
    ours, plain = found["kraken_int8"], found["kraken"]
    assert (ours.wire, plain.wire) == ("int8", "float32")
    assert (ours.collective_bytes, plain.collective_bytes) == (258, 1000)
    assert ours.sent_bytes == ours.collective_bytes  # two ranks: each sends its payload once
    assert ours.compute_samples_ms == plain.compute_samples_ms  # the same model
    assert ours.speedup == pytest.approx(found["standard"].ttft_ms_median / ours.ttft_ms_median - 1)  # float32 sums
    assert "travel as int8" in ours.comparability and "travel" not in plain.comparability


def test_a_wires_model_is_held_once():
    benchmark = compose(WIRED).benchmark
    grid = expand(benchmark, model_config)
    (plain,), (wired,) = grid[2], over_wires(grid, benchmark.wires)[2]
    assert rank_bytes(benchmark, plain, "cpu", False) == rank_bytes(benchmark, wired, "cpu", False)


@pytest.mark.parametrize(
    ("offered", "kind", "transport"),
    [
        (True, "measured", "socket+netem delay"),
        (False, "measured compute, modelled communication", "socket+modelled delay"),
    ],
)
def test_a_row_says_who_brought_the_delay_about(monkeypatch, offered, kind, transport):
    monkeypatch.setattr(links, "offers_netem", lambda: offered)
    row = rows_of("1gbit+2ms")["kraken"]
    assert (row.kind, row.transport, row.link) == (kind, transport, "1gbit+2ms")
    plain = rows_of("1gbit")["kraken"]
    assert (plain.kind, plain.transport) == ("measured", "socket")


@pytest.mark.parametrize(
    ("label", "architecture", "own", "wire"),
    [
        ("standard_split_int8", "standard_split", "standard_split", "int8"),
        ("kraken_flops_bfloat16", "kraken", "kraken_flops", "bfloat16"),
        ("kraken", "kraken", "kraken", "float32"),
    ],
)
def test_a_label_is_a_model_and_a_wire(label, architecture, own, wire):
    assert (architecture_of(label), unwired(label), wire_of(label)) == (architecture, own, wire)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["benchmark.wires=[int8,float32]"], "must begin with float32"),
        (["benchmark.wires=[float32,fp4]"], "wires"),
        (["benchmark.wires=[float32,int8]", "benchmark.dtype=bfloat16"], "need dtype=float32"),
        (["benchmark.architectures=[standard,kraken_int8]"], r"wires=\[float32, int8\] makes of kraken; name that one"),
    ],
)
def test_other_wires_are_refused(overrides, says):
    with pytest.raises(ConfigError, match=says):
        compose([*BASE, *overrides])


def test_gpus_sum_as_they_are_and_that_is_said_before_ranks_start():
    config = compose(WIRED)
    on_gpus = config.cluster.model_copy(update={"device": "cuda"})
    grid = over_wires(expand(config.benchmark, model_config), config.benchmark.wires)
    with pytest.raises(MissingRequirementError, match=r"wires=\['float32', 'int8'\].*benchmark.wires=\[float32\]"):
        ttft.check(config.benchmark, config.link, on_gpus, grid)


def test_errors_are_of_the_models_that_the_benchmark_names_for_it():
    assert compared_models(compose(BASE).benchmark, model_config) is None  # one wire
    chosen = compared_models(compose(["benchmark=ttft_wire"]).benchmark, model_config)
    assert chosen is not None and chosen.tp_size == 2 and chosen.size == "demo"
    assert list(chosen.by_architecture) == compose(["benchmark=ttft_wire"]).benchmark.architectures
    assert chosen.by_architecture["standard"].name == "demo_standard"
