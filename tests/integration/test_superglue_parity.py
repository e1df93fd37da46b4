"""The adapter against the harness' own Hugging Face backend on the same weights."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.evaluation.harness import adapter as superglue
from pipeline.evaluation.scoring.scorer import Scorer
from pipeline.evaluation.superglue import data as superglue_data
from pipeline.evaluation.superglue.tasks import TASKS
from tests.integration.superglue_models import GPT2_VOCABULARY, SUPERGLUE, gpt2_tokenizer, tiny_gpt2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GPT2_VOCABULARY.is_dir(), reason="needs GPT-2's vocabulary in ../shared/gpt2"),
]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, superglue.HarnessModel]]:
    """(the harness' HF backend, ours), same weights."""
    from lm_eval.models.huggingface import HFLM
    from transformers import GPT2LMHeadModel, GPT2TokenizerFast

    from benchmarks.gpt2_export import save_checkpoint

    folder = tmp_path_factory.mktemp("gpt2")
    model = tiny_gpt2()
    save_checkpoint(folder, model, GPT2_VOCABULARY)
    theirs = HFLM(
        pretrained=GPT2LMHeadModel.from_pretrained(folder),
        tokenizer=GPT2TokenizerFast.from_pretrained(folder),
        batch_size=4,
        device="cpu",
    )
    yield theirs, superglue.HarnessModel(Scorer(model, batch_size=4), gpt2_tokenizer())


def tasks_of(data_dir: Path | None, n_shot: int, limit: int) -> list[superglue.HarnessTask]:
    data = superglue_data.load(TASKS, None if data_dir is None else str(data_dir), n_shot)
    built = [superglue.superglue_task(item) for item in data]
    for task in built:
        task.build(n_shot, 1234, limit)
    return built


@pytest.mark.parametrize("n_shot", [0, 3])
@pytest.mark.parametrize("data_dir", [None, SUPERGLUE], ids=["shipped", "real"])
def test_scores_agree(backends: tuple[Any, Any], data_dir: Path | None, n_shot: int) -> None:
    """Log-likelihoods to 1e-4, which choice is greedy and every metric exactly."""
    if data_dir is not None and not data_dir.is_dir():
        pytest.skip("needs SuperGLUE's files in ../shared/superglue")
    theirs, ours = backends
    tasks = tasks_of(data_dir, n_shot, 6 if data_dir is None else 2)
    for task in tasks:
        expected = theirs.loglikelihood(task.task.instances, disable_tqdm=True)
        found = ours.loglikelihood(task.task.instances)
        assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4, rel=1e-6)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected], task.name
    ours_again = {task.name: task.score(ours, 0)["metrics"] for task in tasks}
    for task in tasks_of(data_dir, n_shot, 6 if data_dir is None else 2):
        assert task.score(theirs, 0)["metrics"] == ours_again[task.name], task.name


def test_rolling_agrees(backends: tuple[Any, Any]) -> None:
    theirs, ours = backends
    texts = ["A short text.", " ".join(map(str, range(400))), "x"]  # the second is several windows long
    requests = [SimpleNamespace(args=(text,)) for text in texts]
    assert ours.loglikelihood_rolling(requests) == pytest.approx(
        theirs.loglikelihood_rolling(requests, disable_tqdm=True), rel=1e-5
    )


def test_generation_agrees(backends: tuple[Any, Any]) -> None:
    theirs, ours = backends
    settings = {"until": ["\n"], "max_gen_toks": 12, "do_sample": False}
    texts = ["The river froze and", "Question: who came?\nAnswer:", "One two three", "long " * 400]
    requests = [SimpleNamespace(args=(text, dict(settings)), task_name="own") for text in texts]
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_empty_context_agrees(backends: tuple[Any, Any]) -> None:
    theirs, ours = backends
    requests = [SimpleNamespace(args=("", " the end")), SimpleNamespace(args=("So it  ", "was"))]
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    assert [value for value, _ in ours.loglikelihood(requests)] == pytest.approx([v for v, _ in expected], abs=1e-4)
