"""The stage itself: table, result file, what is kept after an interruption, what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import ConfigError, DataError
from pipeline.evaluation.harness import adapter as superglue
from pipeline.evaluation.harness import run as task_run
from pipeline.evaluation.harness.cache import TaskCache
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.tracking import StageRun
from stages import evaluate_superglue
from stages.entry import launch
from tests.integration.superglue_models import save_demo_model

pytestmark = pytest.mark.slow

FAST = ("evaluation.limit=5", "evaluation.bootstrap_iters=50")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    save_demo_model(folder, "demo_standard", seed=1)
    save_demo_model(folder, "demo_kraken_4way", seed=2)
    return folder


def overrides(trained: Path, work: Path, model: str, *more: str) -> list[str]:
    folders = [f"paths.trained={trained}", f"paths.results={work}/results", f"paths.runs={work}/runs"]
    return [f"model={model}", "tracking=none", *folders, *more]


def configure(trained: Path, work: Path, model: str, *more: str) -> Config:
    return compose(overrides(trained, work, model, *more))


def score(config: Config) -> dict[str, Any]:
    work = Work(BY_NAME["evaluate_superglue"], config)
    evaluate_superglue.run(work, StageRun())
    return dict(json.loads(work.result.read_text()))


def test_table_file_and_difference(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score(configure(trained, tmp_path, "demo_standard"))
    capsys.readouterr()
    body = score(configure(trained, tmp_path, "demo_kraken_4way", "evaluation.baseline=demo_standard"))
    shown = capsys.readouterr().out
    assert list(body["tasks"]) == ["boolq", "sglue_rte", "cb", "copa", "record", "wic", "wsc", "multirc"]
    for entry in body["tasks"].values():
        assert 0 <= entry["score"] <= 100 and entry["standard_error"] > 0 and 0 < entry["chance"] < 100
        assert entry["title"] in shown and f"{entry['score']:.2f} ± {entry['standard_error']:.2f}" in shown
    scores = [entry["score"] for entry in body["tasks"].values()]
    assert body["mean"] == pytest.approx(sum(scores) / 8)
    assert body["data"] == "shipped" and "not comparable with published values" in shown
    assert body["tasks"]["record"]["majority"] is None and body["tasks"]["copa"]["majority"] == 50
    assert body["provenance"]["versions"]["lm_eval"] == superglue.HARNESS_VERSION
    differences = body["baseline"]["differences"]
    assert set(differences) == {*body["tasks"], "mean"}
    other = json.loads((tmp_path / "results/demo/demo_standard/superglue_3shot.json").read_text())
    assert differences["mean"]["difference"] == pytest.approx(body["mean"] - other["mean"], abs=1e-6)
    assert body["baseline"]["sentence"] in shown and "noise" in shown


def test_zero_shot_says_nothing_is_published(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = score(
        configure(trained, tmp_path, "demo_standard", "evaluation=superglue_0shot", "evaluation.tasks=[cb]", *FAST)
    )
    assert body["n_shot"] == 0 and body["published"] is None
    assert "not published as numbers" in capsys.readouterr().out


def test_interrupted_tasks_are_kept(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb,copa,wic]", *FAST)
    whole = score(configure(trained, tmp_path / "whole", "demo_standard", "evaluation.tasks=[cb,copa,wic]", *FAST))
    really = superglue.HarnessTask.score

    def interrupted(self: superglue.HarnessTask, *arguments: Any) -> dict[str, Any]:
        if self.name == "wic":
            raise KeyboardInterrupt
        return really(self, *arguments)

    monkeypatch.setattr(superglue.HarnessTask, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(config)
    scored: list[str] = []

    def watched(self: superglue.HarnessTask, *arguments: Any) -> dict[str, Any]:
        scored.append(self.name)
        return really(self, *arguments)

    monkeypatch.setattr(superglue.HarnessTask, "score", watched)
    body = score(config)
    assert scored == ["wic"] and body["scoring"]["kept_tasks"] == 2
    assert {task: entry["score"] for task, entry in body["tasks"].items()} == {
        task: entry["score"] for task, entry in whole["tasks"].items()
    }


@pytest.mark.parametrize("change", ["evaluation.n_shot=1", "evaluation.seed=5", "evaluation.limit=4"])
def test_other_settings_are_scored_anew(trained: Path, tmp_path: Path, change: str) -> None:
    again = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST)
    assert score(again)["scoring"]["kept_tasks"] == 0
    assert score(again)["scoring"]["kept_tasks"] == 1
    other = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST, change)
    assert score(other)["scoring"]["kept_tasks"] == 0


def test_other_weights_share_nothing(trained: Path, tmp_path: Path) -> None:
    """The same name and settings, other weights."""
    config = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST)
    score(config)
    save_demo_model(tmp_path / "other", "demo_standard", seed=9)
    other = configure(tmp_path / "other", tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST)
    assert score(other)["scoring"]["kept_tasks"] == 0


def test_damaged_cache_counts_as_none(tmp_path: Path) -> None:
    cache = TaskCache(tmp_path, {"model": "a"})
    cache.put("cb", {"x": 1}, version="1")
    assert cache.get("cb", version="1") == {"x": 1}
    assert cache.get("cb", version="2") is None
    assert TaskCache(tmp_path, {"model": "b"}).get("cb", version="1") is None
    next(tmp_path.glob("cb-*.json")).write_text('{"key"')
    assert cache.get("cb", version="1") is None


def test_tokenizer_without_the_letters_is_an_error(trained: Path, tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer, models, pre_tokenizers

    shutil.copytree(trained / "demo" / "demo_standard", tmp_path / "demo" / "demo_standard")
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<|endoftext|>": 1, "the": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "demo" / "demo_standard" / "tokenizer.json"))
    with pytest.raises(DataError, match="task cb: the tokenizer cannot represent"):
        score(configure(tmp_path, tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["evaluation.data_dir=/does/not/exist"], "/does/not/exist: no such folder"),
        (["model=demo_parallel"], "train it first"),
        (["cluster.evaluation_tp_size=3"], "must divide the 4 heads"),
        (["evaluation=lm_eval"], "needs tasks"),
        (["evaluation.checkpoint=/does/not/exist"], "hf download"),
    ],
)
def test_exit_code_2_before_work(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate_superglue", *overrides(trained, tmp_path, "demo_standard", *more)])
    assert launch(evaluate_superglue.run, "") == 2
    assert words in capsys.readouterr().err


def test_any_harness_task(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Choices, a rolling likelihood and generation, from task files of one's own."""
    rows = [{"text": f"The {word} fell into the river.", "word": word} for word in ("stone", "apple", "hat")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = (
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\ntest_split: test\n"
        "metadata: {version: 1.0}\n"
    )
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "own_choice.yaml").write_text(
        common + "task: own_choice\noutput_type: multiple_choice\ndoc_to_text: 'What fell? {{text}} It was the'\n"
        "doc_to_choice: ['stone', 'apple', 'hat']\ndoc_to_target: '{{word}}'\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (tasks / "own_rolling.yaml").write_text(
        common + "task: own_rolling\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: bits_per_byte}]\n"
    )
    (tasks / "own_text.yaml").write_text(
        common
        + "task: own_text\noutput_type: generate_until\ndoc_to_text: 'Q: {{text}} A:'\ndoc_to_target: '{{word}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 4, do_sample: false}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    names = "tasks=[own_choice,own_rolling,own_text]"
    more = ("evaluation=lm_eval", names, f"evaluation.task_dir={tasks}")
    body = score(configure(trained, tmp_path, "demo_kraken_4way", *more))
    assert set(body["tasks"]) == {"own_choice", "own_rolling", "own_text"}
    assert 0 <= body["tasks"]["own_choice"]["score"] <= 1 and body["tasks"]["own_choice"]["items"] == 3
    assert body["tasks"]["own_rolling"]["metrics"]["bits_per_byte"] > 1  # random weights compress nothing
    assert body["tasks"]["own_text"]["metrics"]["exact_match"] == 0
    shown = capsys.readouterr()
    assert "own_rolling" in shown.out and "15/15" in shown.err
    assert score(configure(trained, tmp_path, "demo_kraken_4way", *more))["tasks"] == body["tasks"]
    assert "15/15" not in capsys.readouterr().err  # kept
    (tasks / "own_text.yaml").write_text(
        (tasks / "own_text.yaml").read_text().replace("do_sample: false", "do_sample: true")
    )
    sampled = configure(
        trained, tmp_path / "sampled", "demo_kraken_4way", "evaluation=lm_eval", "tasks=[own_text]", more[2]
    )
    with pytest.raises(ConfigError, match="greedy generation only"):
        score(sampled)
    with pytest.raises(ConfigError, match="did you mean"):
        score(configure(trained, tmp_path, "demo_kraken_4way", "evaluation=lm_eval", "tasks=[own_chioce]", more[2]))


def test_progress_covers_all_requests(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb,copa]", *FAST)
    score(config)
    assert "25/25" in capsys.readouterr().err  # 5 questions with 3 and with 2 choices


def test_kept_results_need_no_model(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(trained, tmp_path, "demo_standard", "evaluation.tasks=[cb]", *FAST)
    first = score(config)

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing is left to score")

    monkeypatch.setattr(task_run, "open_scorer", refuse)
    assert score(config)["tasks"] == first["tasks"]
