"""Clients served over real ranks: every request gets the tokens that it gets alone, in one process, without a cache."""

import pytest
import torch

from pipeline.benchmark.grid import Models
from pipeline.benchmark.kept import Kept
from pipeline.benchmark.launches import measure_grid
from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.serving import drawn_tokens
from pipeline.benchmark.result import ranks_result
from pipeline.compose import compose
from pipeline.engines.torch import TorchEngine
from pipeline.models.checkpoint import save_model
from tests.integration.test_ttft_ranks import spec
from tests.unit.test_models import config, perturbed
from tests.unit.test_slots import alone

pytestmark = pytest.mark.slow

CONTEXT, CLIENTS, PER_CLIENT, MEAN, SEED = 6, 3, 2, 3, 1


@pytest.mark.parametrize(("tp_size", "transport"), [(1, "gloo"), (2, "gloo"), (2, "socket")])
def test_requests_served_together_get_the_tokens_that_each_gets_alone(tmp_path, tp_size, transport):
    shapes = {"standard": config("standard"), "kraken": config("kraken", 4), "standard_split": config("standard_split")}
    models = {name: perturbed(shape) for name, shape in shapes.items()}
    for name, model in models.items():
        save_model(tmp_path / name, model)
    raw = {name: shape.model_dump(mode="json") for name, shape in shapes.items()}
    with (
        make_links(["loopback"], tp_size) as links,
        RankGroup(spec(tp_size, tmp_path, transport=transport), links, 60) as ranks,
    ):
        ranks.command("load", models=raw, folders={name: str(tmp_path / name) for name in raw})
        answers = ranks.command(
            "serve", context=CONTEXT, concurrency=CLIENTS, requests_per_client=PER_CLIENT, new_tokens=MEAN
        )
    asked = drawn_tokens(CLIENTS * PER_CLIENT, MEAN, SEED)
    generator = torch.Generator().manual_seed(SEED)
    prompts = torch.randint(0, 64, (len(asked), CONTEXT), generator=generator).tolist()
    for name, model in models.items():
        engine = TorchEngine(model)
        for answer in answers:
            expected = [alone(engine, prompt, count) for prompt, count in zip(prompts, asked, strict=True)]
            assert answer[name]["tokens"] == expected, name
        assert answers[0][name]["ttft_ms"] == answers[-1][name]["ttft_ms"]  # the maximum over ranks, agreed on by all
        assert all(ms > 0 for ms in answers[0][name]["ttft_ms"])
        longest = max(answers[0][name]["ttft_ms"]) / 1e3
        assert answers[0][name]["seconds"] > longest


def test_a_benchmark_serves_in_every_launch_and_keeps_what_it_has_served(tmp_path):
    """Through the ranks of the grid itself, to rows; a second run has the kept launches' samples and starts nothing."""
    settings = [
        *("benchmark=ttft_serving", "cluster.pin_cores=false"),
        *("benchmark.launches=2", "benchmark.concurrencies=[1,2]", "benchmark.requests_per_client=2"),
        *("benchmark.decode_tokens=2", "benchmark.batch_sizes=[1]", "benchmark.time_limit_s=1"),
    ]
    composed = compose(settings)
    benchmark = composed.benchmark.model_copy(update={"contexts": [CONTEXT]})
    by_label = {"standard": config("standard"), "kraken": config("kraken", 4)}
    grid = {2: [Models("tiny", 2, by_label, frozenset())]}
    said: list[str] = []
    kept = Kept(tmp_path / "ttft.json", "abc")
    run = (benchmark, composed.link, composed.cluster, grid, {}, said.append, kept)
    measured, decoded, served = measure_grid(*run)
    assert (len(measured), decoded, [one.cell.concurrency for one in served]) == (1, [], [1, 2])
    rows = ranks_result(measured, decoded, served, benchmark, "demo", tmp_path).serving_rows
    assert [(row.architecture, row.concurrency, row.requests) for row in rows] == [
        *(("standard", 1, 4), ("kraken", 1, 4)),
        *(("standard", 2, 8), ("kraken", 2, 8)),
    ]
    assert all([len(launch) for launch in row.samples_ms] == [2 * row.concurrency] * 2 for row in rows)
    assert all(row.link == "loopback" and row.transport == "socket" and row.mode == "eager" for row in rows)
    assert sum("served at concurrency" in line for line in said) == 4

    said.clear()
    again = ranks_result(*measure_grid(*run), benchmark, "demo", tmp_path).serving_rows
    assert again == rows
    assert not any("starting" in line for line in said)
