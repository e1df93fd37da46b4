"""Shipped models that are to cost a rank as many FLOPs as the standard model beside them do."""

import pytest

from pipeline.benchmark.grid import expand
from pipeline.compose import group_options, model_config, shipped
from pipeline.config.benchmark import BASELINE, BenchmarkConfig
from pipeline.models import Placement, count

MATCHED = [name for name in group_options("model") if "_flops_" in name]
TOLERANCE = 0.01


def pairs() -> list[tuple[str, str, str, int, int]]:
    """(benchmark, matched model, standard model, context, tp_size) of every cell that meets one."""
    found = []
    for name in group_options("benchmark"):
        benchmark = shipped("benchmark", name)
        assert isinstance(benchmark, BenchmarkConfig)
        for tp_size, sizes in expand(benchmark, model_config).items():
            for models in sizes:
                named = [model.name for model in models.by_architecture.values() if model.name in MATCHED]
                standard = models.by_architecture[BASELINE].name
                found += [(name, one, standard, context, tp_size) for one in named for context in benchmark.contexts]
    return found


@pytest.mark.parametrize(("benchmark", "name", "standard", "context", "tp_size"), pairs())
def test_a_model_matched_in_flops_is_so_in_every_benchmark_that_names_it(benchmark, name, standard, context, tp_size):
    placement = Placement(0, tp_size)
    ours, theirs = (count.prefill_flops(model_config(one), 1, context, placement) for one in (name, standard))
    assert ours == pytest.approx(theirs, rel=TOLERANCE), f"{benchmark}: {name} against {standard}"


def test_every_matched_model_is_timed_somewhere():
    assert MATCHED and set(MATCHED) == {name for _, name, *_ in pairs()}


@pytest.mark.parametrize("tp_size", [2, 4])
def test_the_models_of_124m_are_at_equal_flops_from_128_to_1024_tokens(tp_size):
    placement = Placement(0, tp_size)
    ours, theirs = model_config(f"cpu_kraken_flops_{tp_size}way"), model_config("standard_124m")
    for context in (128, 256, 512, 1024):
        there = count.prefill_flops(theirs, 1, context, placement)
        assert count.prefill_flops(ours, 1, context, placement) == pytest.approx(there, rel=TOLERANCE)
