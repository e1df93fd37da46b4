"""Tensor-parallel scoring over gloo ranks equals one process."""

from pathlib import Path

import pytest

from pipeline.compose import model_config
from pipeline.errors import RunError
from pipeline.evaluation.scoring.ranks import open_scorer
from pipeline.evaluation.scoring.requests import Request
from pipeline.evaluation.scoring.source import ModelSource
from pipeline.models import build_model
from pipeline.models.checkpoint import save_model

pytestmark = pytest.mark.slow

CONTEXT = tuple(range(100, 140))
REQUESTS = [Request(CONTEXT, (choice, 7, 8)) for choice in range(5)] + [Request((1, 2), (3,)), Request((5,), (9, 9))]


@pytest.mark.parametrize("name", ["demo_standard", "demo_kraken_4way"])
def test_two_ranks_equal_one_process(tmp_path: Path, name: str) -> None:
    config = model_config(name).model_copy(update={"init_std": 0.1})
    save_model(tmp_path, build_model(config, seed=4))
    source = ModelSource(tmp_path, config)
    with open_scorer(source, "cpu", batch_size=4) as scorer:
        expected = scorer.loglikelihood(REQUESTS)
        text = scorer.generate([(1, 2, 3), (4, 5)], 5, lambda new: len(new) == 3)
    with open_scorer(source, "cpu", batch_size=4, tp_size=2) as scorer:
        found = scorer.loglikelihood(REQUESTS)
        assert [score.loglikelihood for score in found] == pytest.approx(
            [score.loglikelihood for score in expected], abs=1e-4
        )
        assert [score.is_greedy for score in found] == [score.is_greedy for score in expected]
        assert scorer.generate([(1, 2, 3), (4, 5)], 5, lambda new: len(new) == 3) == text
        assert scorer.counts.requests == len(REQUESTS) + 2


def test_a_rank_that_dies_is_an_error_not_a_hang(tmp_path: Path) -> None:
    import multiprocessing

    config = model_config("demo_kraken_4way")
    save_model(tmp_path, build_model(config, seed=4))
    with (
        pytest.raises(RunError, match="over 2 ranks failed"),
        open_scorer(ModelSource(tmp_path, config), "cpu", batch_size=4, tp_size=2) as scorer,
    ):
        scorer.loglikelihood(REQUESTS)
        (rank,) = multiprocessing.active_children()
        rank.kill()
        rank.join()
        scorer.loglikelihood(REQUESTS)
