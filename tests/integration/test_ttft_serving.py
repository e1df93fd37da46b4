"""Clients served over real ranks: every request gets the tokens that it gets alone, in one process, without a cache."""

import pytest
import torch

from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.serving import drawn_tokens
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
