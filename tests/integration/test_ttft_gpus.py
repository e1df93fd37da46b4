"""Ranks over NCCL. Skipped without two CUDA GPUs."""

from dataclasses import replace

import pytest
import torch

from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from tests.integration.test_ttft_ranks import RULES, TOKENS, cases, spec
from tests.integration.test_ttft_ranks import trained as trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.multigpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]


def test_tensor_parallel_logits_over_nccl_equal_one_process(trained, tmp_path):
    folder, expected = trained
    plain = replace(spec(2, tmp_path), device="cuda", cuda_graph=True)
    with make_links(["loopback"], 2) as links, RankGroup(plain, links, 120) as ranks:
        raw = {name: shape.model_dump(mode="json") for name, shape in cases().items()}
        ranks.command("load", models=raw, folders={name: str(folder / name) for name in raw})
        for name in raw:
            ranks.command("logits", architecture=name, tokens=TOKENS, path=str(tmp_path / name))
        measured = ranks.command("measure", context=12, batch_size=2, rules=RULES)
        ranks.command("instrument", context=12, batch_size=2, repeats=1)
    for name, logits in expected.items():
        torch.testing.assert_close(torch.load(tmp_path / f"{name}.0"), logits, atol=1e-4, rtol=0)
        assert measured[0]["details"][name]["ranks_agree"]
