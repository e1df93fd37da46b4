"""What a benchmark says it would run."""

import re
from typing import Any

import pytest

from pipeline.benchmark.dry_run import dry_run
from pipeline.benchmark.grid import expand
from pipeline.benchmark.ranks import links
from pipeline.benchmark.wire_errors import compared_models
from pipeline.compose import compose, model_config
from pipeline.experiment.work import Work
from stages import benchmark_ttft


def text(*overrides: str) -> str:
    config = compose(list(overrides))
    grid = expand(config.benchmark, model_config)
    compared = compared_models(config.benchmark, model_config)
    return dry_run(config.benchmark, config.link, config.cluster.device, grid, compared)


def rows(plan: str) -> int:
    found = re.search(r": (\d+) rows", plan)
    assert found
    return int(found[1])


SMALL = ("benchmark.tp_sizes=[2]", "benchmark.contexts=[64]", "benchmark.batch_sizes=[1]")
TWO = "benchmark.architectures=[standard,kraken]"


def test_ranks_meet_over_every_link() -> None:
    assert rows(text(*SMALL, TWO)) == 3  # the bound with them
    assert rows(text(*SMALL, TWO, "benchmark.no_communication_bound=false")) == 2
    assert rows(text(*SMALL, TWO, "link=rate", "link.links=[1gbit,loopback]")) == 6


def test_one_rank_has_one_link_and_its_compute_alone_as_rows() -> None:
    one_rank = (*SMALL, TWO, "benchmark.protocol=one_rank")
    plan = text(*one_rank, "link=rate", "link.links=[1gbit,loopback]")
    assert rows(plan) == rows(text(*one_rank)) == 5
    assert "4 forwards a round" in plan and "links: the modelled one" in plan


def test_time_that_is_short_is_in_seconds_and_the_fewest_rounds_are_the_benchmarks() -> None:
    few = "benchmark.repeats_min=4"
    assert "at most about 20 seconds of timing, longer where 4 rounds do not" in text(
        *SMALL, few, "benchmark.time_limit_s=20"
    )
    assert "at most about 5 minutes of timing" in text(*SMALL, few, "benchmark.time_limit_s=300")


def test_all_that_is_done_besides_timing_is_named() -> None:
    assert "decodes" not in text(*SMALL, TWO) and "compares" not in text(*SMALL, TWO)
    assert "decodes 8 tokens behind T=64 B=1: 3 rounds" in text(*SMALL, TWO, "benchmark.decode_tokens=8")
    wired = text("benchmark=ttft_wire")
    assert "compares bfloat16, int8 sums with float32 ones on demo over 2 ranks: 32 windows of " in wired


@pytest.mark.parametrize(("offered", "by"), [(True, "the kernel's netem"), (False, "a model")])
def test_who_delays_a_link_is_said(monkeypatch: pytest.MonkeyPatch, offered: bool, by: str) -> None:
    monkeypatch.setattr(links, "offers_netem", lambda: offered)
    plan = text(*SMALL, TWO, "link=rate", "link.links=[1gbit,1gbit+2ms]")
    assert f"links: 1gbit, 1gbit+2ms (delayed by {by}); " in plan


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_cluster_says_where_ranks_run_not_the_type(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose([*SMALL, f"benchmark.dtype={dtype}"])

    class Planned:
        def __init__(self, config: Any) -> None:
            self.config = config

    works: list[Work] = [Planned(config)]  # type: ignore[list-item]
    plan = benchmark_ttft.plan(works)
    assert "needs 2 cores" in plan and f"in {dtype}" in plan
    assert benchmark_ttft.check(works) == []


def test_all_reduces_are_counted_at_the_prompt() -> None:
    plan = text(
        "benchmark.tp_sizes=[2]", "benchmark.contexts=[64]", "benchmark.architectures=[standard,standard_split]"
    )
    counts = re.findall(r"into (\d+) all-reduces, (\d+) blocking", plan)
    assert counts == [("8", "8"), ("14", "2")]  # the last layer sums one position: nothing to split
