"""Result bodies: what is compared with what, and what the sentences say."""

import numpy as np
import pytest

from pipeline.results.scores import Outcomes
from pipeline.results.tasks import (
    PairedDifference,
    TaskRecord,
    TasksResult,
    against_baseline,
    against_published,
    noise_sentence,
    paired_differences,
    summarise,
)


def record(task: str, values: list[float], items: str = "same", metric: str = "acc") -> TaskRecord:
    return TaskRecord(
        task=task,
        title=task.upper(),
        metric=metric,
        version="1.0",
        outcomes=Outcomes(np.array(values), np.arange(len(values))),
        items=items,
        chance=0.5,
        majority=None if metric == "f1" else 0.6,
        requests=2 * len(values),
        truncated=1,
        label="full",
        notes=("a note",),
    )


def result(*records: TaskRecord, n_shot: int = 3, model: str = "model") -> TasksResult:
    return TasksResult(
        kind="measured",
        model=model,
        architecture="standard",
        evaluation="superglue_3shot",
        scale="demo",
        n_shot=n_shot,
        seed=1,
        limit=None,
        tp_size=1,
        checkpoint_sha256="0" * 64,
        bootstrap_iters=200,
        data="full",
        **summarise(records, 200, 1),
    )


def gap(is_noise: bool) -> PairedDifference:
    return PairedDifference(difference=1, standard_error=1, low=0, high=2, p_value=0.5, is_noise=is_noise)


def test_records_survive_the_cache() -> None:
    before = record("cb", [1.0, 0.0, 1 / 3])
    after = TaskRecord.from_json(before.to_json())
    assert after.outcomes.values == pytest.approx(before.outcomes.values, abs=1e-6)
    assert (after.notes, after.items, after.majority) == (before.notes, before.items, before.majority)


def test_scores_are_percent_and_say_how_their_error_was_had() -> None:
    found = result(record("cb", [1.0, 0.0, 1.0, 1.0]), record("record", [0.5, 0.0, 1.0, 0.7], metric="f1"))
    assert found.tasks["cb"].score == 75 and found.tasks["cb"].standard_error_by == "formula"
    assert found.tasks["record"].standard_error_by == "bootstrap"
    assert found.mean == pytest.approx((75 + 55) / 2)
    assert found.mean_majority == pytest.approx((60 + 50) / 2)  # where there are no classes, chance


def test_differences_only_on_the_same_items_and_shots() -> None:
    ours = result(record("cb", [1.0, 1.0, 1.0]), record("copa", [1.0, 0.0]))
    theirs = result(record("cb", [0.0, 1.0, 0.0]), record("copa", [1.0, 0.0], items="others"))
    found = paired_differences(ours, theirs, 200, 1)
    assert list(found) == ["cb"]  # no mean: copa's items differ
    assert found["cb"].difference == pytest.approx(200 / 3)
    assert paired_differences(ours, result(record("cb", [0.0, 1.0, 0.0]), n_shot=0), 200, 1) == {}
    both = paired_differences(ours, result(record("cb", [0.0] * 3), record("copa", [1.0, 1.0])), 200, 1)
    assert both["mean"].difference == pytest.approx((100 - 50) / 2)


def test_sentences() -> None:
    titles = {"cb": "CB", "copa": "COPA"}
    assert noise_sentence("a", "b", {"cb": gap(True), "copa": gap(True)}, titles).startswith("No difference between a")
    mixed = noise_sentence("a", "b", {"cb": gap(True), "copa": gap(False)}, titles)
    assert mixed == "a differs from b by more than noise on COPA; on CB it cannot be told from noise."
    assert "not scored on the same items" in noise_sentence("a", "b", {}, titles)


def test_published_values_above_two_standard_errors_are_flagged() -> None:
    found = result(record("cb", [1.0, 0.0] * 50))
    error = found.tasks["cb"].standard_error
    assert error is not None
    near = against_published(found, {"cb": 50 - 1.9 * error, "mean": 50.0}, "row")
    far = against_published(found, {"cb": 50 - 2.1 * error, "wic": 3.0}, "row")
    assert near.comparable and not near.tasks["cb"].flagged and not near.tasks["mean"].flagged
    assert far.tasks["cb"].flagged and "wic" not in far.tasks


def test_two_result_files_are_compared_as_the_stage_would() -> None:
    ours, theirs = result(record("cb", [1.0] * 30), model="new"), result(record("cb", [0.0] * 30), model="old")
    found = against_baseline(ours, theirs)
    assert found.model == "old" and found.differences["cb"].difference == 100.0
    assert found.sentence == "new differs from old by more than noise on CB, mean."
