"""When work counts as done: the same settings, made from the same tokens and the same model."""

import json

import pytest

from pipeline import files
from pipeline.compose import compose
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.provenance import write_result


@pytest.fixture
def work(tmp_path):
    names = ("data", "trained", "runs", "engines", "results", "report")
    config = compose(["model=demo_standard", *(f"paths.{name}={tmp_path}/{name}" for name in names)])
    return Work(BY_NAME["evaluate_perplexity"], config)


def make_inputs(work, sha256: str = "aa", steps: int = 10) -> None:
    data, trained = work.stage.paths(work.stage.inputs, work.config)
    files.write_json(data / "manifest.json", {"shards": [{"sha256": sha256}], "made": "at some time"})
    files.write_json(trained / "config.json", {"steps": steps, "fingerprint": sha256})


def finish(work) -> None:
    stage, config = work.stage, work.config
    write_result(stage.result(config), {}, stage.fingerprint(config), stage.input_marks(config))


def test_finished_work_is_done(work):
    make_inputs(work)
    assert not work.is_done()
    finish(work)
    assert work.is_done()


def test_other_settings_are_other_work(work):
    make_inputs(work)
    finish(work)
    other = work.config.model_copy(
        update={"evaluation": work.config.evaluation.model_copy(update={"random_windows": 3})}
    )
    assert not Work(work.stage, other).is_done()


@pytest.mark.parametrize("change", [{"sha256": "bb"}, {"steps": 20}])
def test_new_tokens_or_a_model_trained_anew_leave_nothing_done(work, change):
    make_inputs(work)
    finish(work)
    make_inputs(work, **change)
    assert not work.is_done()
    make_inputs(work)
    assert work.is_done()


def test_the_same_tokens_written_again_change_nothing(work):
    make_inputs(work)
    finish(work)
    manifest = work.stage.paths(work.stage.inputs, work.config)[0] / "manifest.json"
    files.write_json(manifest, json.loads(manifest.read_text()) | {"made": "at another"})
    assert work.is_done()


def test_a_result_without_provenance_is_not_done(work):
    make_inputs(work)
    files.write_json(work.stage.result(work.config), {"loss_nats": 1.0})
    assert not work.is_done()
