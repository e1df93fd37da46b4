"""A study through the real stages, Ray and MLflow: killed and started again, nothing that is done is done again."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient

from pipeline.compose import compose
from pipeline.tracking import open_tracker
from tests.integration.test_training_faults import Driver
from tests.token_folder import data_overrides, write_token_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PER_STEP = 256  # tokens: one window of the demo's models
STUDY = [
    *("+experiment=ablation_init", "~sweep.sizes.s", "sweep.sizes.xs.n_layer=1", "sweep.sizes.xs.n_embd=32"),
    *(f"sweep.tokens=[{40 * PER_STEP},{80 * PER_STEP}]", f"sweep.central_tokens={40 * PER_STEP}"),
    *(f"sweep.search_tokens={160 * PER_STEP}", "sweep.extend=0", "sweep.n_seeds=2", "sweep.warmup_steps=4"),
    *("training.global_batch_size=1", "training.eval_windows=4", "cluster.micro_batch_size=1"),
    *("cluster.log_interval=10", "cluster.checkpoint_interval=20"),
]
ARMS = ("kraken_4way", "kraken_4way_plain_init")
Kept = dict[Path, tuple[int, bytes]]  # outcome files: when they were written, and what they say


class Place:
    """Where one study's files lie, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = write_token_folder(folder)
        self.store = f"sqlite:///{folder}/mlflow.db"

    def start(self, stage: str, *changes: str) -> Driver:
        outputs = [f"paths.{name}={self.folder}/{name}" for name in ("trained", "runs", "results")]
        where = [f"paths.data={self.tokens.parent}", *data_overrides(self.tokens), *outputs]
        tracking = [f"tracking.uri={self.store}", f"tracking.artifact_dir={self.folder}/artifacts"]
        words = [sys.executable, "-m", f"stages.{stage}", *STUDY, *where, *tracking, "tracking.system_metrics=false"]
        return Driver([*words, *changes], self.folder)

    def do(self, stage: str, *changes: str) -> str:
        driver = self.start(stage, *changes)
        assert driver.ends(200) == 0, driver.errors()[-3000:]
        return driver.said()

    def outcomes(self) -> Kept:
        paths = self.folder.glob("runs/demo/trials/*/*/outcome.json")
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    def result(self, name: str) -> dict[str, Any]:
        """The newest of that name."""
        paths = self.folder.glob(f"results/demo/ablation_init~*/{name}.json")
        return json.loads(max(paths, key=lambda path: path.stat().st_mtime_ns).read_text())


class History(NamedTuple):
    """What a study left after each of its commands."""

    killed: Kept  # after the driver was killed in the search
    searched: Kept
    search: dict[str, Any]
    compared: Kept
    quality: dict[str, Any]
    again: str  # what the same command said then
    untouched: bool
    more: Kept  # after a seed was added
    more_quality: dict[str, Any]
    client: MlflowClient


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    place = Place(tmp_path_factory.mktemp("study"))
    driver = place.start("search_recipes")
    driver.wait_for(place.outcomes)
    driver.process.kill()
    driver.ends()
    killed = place.outcomes()
    place.do("search_recipes")
    searched, search = place.outcomes(), place.result("search")

    driver = place.start("compare_quality")
    driver.wait_for(lambda: driver.named("ray::ImplicitFunc.train") and any(place.folder.glob("runs/*/*/*/40-*")))
    driver.named("ray::ImplicitFunc.train")[0].kill()
    assert driver.ends(200) == 0, driver.errors()[-3000:]
    compared, quality = place.outcomes(), place.result("quality")
    again = place.do("compare_quality")
    untouched = place.outcomes() == compared

    place.do("search_recipes", "sweep.n_seeds=3")
    place.do("compare_quality", "sweep.n_seeds=3")
    more, more_quality = place.outcomes(), place.result("quality")
    client = MlflowClient(place.store)
    return History(killed, searched, search, compared, quality, again, untouched, more, more_quality, client)


def is_kept(before: Kept, after: Kept) -> bool:
    return bool(before) and all(after.get(path) == was for path, was in before.items())


def test_search_goes_on_after_its_driver_was_killed(history):
    assert 0 < len(history.killed) < 4 and is_kept(history.killed, history.searched)
    search = history.search
    points = {(one["arm"], one["learning_rate"], one["init_std"]) for one in search["trials"]}
    assert points == {(arm, rate, 0.02) for arm in ARMS for rate in (2e-3, 4e-3)} and len(search["trials"]) == 4
    assert [one["arm"] for one in search["recipes"]] == list(ARMS)
    for arm, recipe in zip(ARMS, search["recipes"], strict=True):
        ended = [one for one in search["trials"] if one["arm"] == arm and one["loss_nats"] is not None]
        assert recipe["loss_nats"] == min(one["loss_nats"] for one in ended) < 8.4  # ln 4096 is 8.3
    assert [rung["tokens"] for rung in search["trials"][0]["rungs"]][:1] == [80 * PER_STEP]
    assert len(history.searched) == 4


def test_same_tokens_goes_on_after_a_worker_was_killed(history):
    assert is_kept(history.searched, history.compared) and len(history.compared) == 4 + 8
    runs = {(run["arm"], run["tokens"], run["seed"]): run for run in history.quality["runs"]}
    assert set(runs) == {(arm, n * PER_STEP, seed) for arm in ARMS for n in (40, 80) for seed in (1337, 1338)}
    assert all(run["loss_nats"] is not None for run in runs.values())
    rates = {one["arm"]: one["learning_rate"] for one in history.search["recipes"]}
    assert {one["arm"]: one["learning_rate"] for one in history.quality["models"]} == rates
    cells = {(one["arm"], one["tokens"]): one for one in history.quality["cells"]}
    for (arm, tokens), cell in cells.items():
        losses = [runs[arm, tokens, seed]["loss_nats"] for seed in (1337, 1338)]
        assert cell["loss_nats"]["value"] == pytest.approx(sum(losses) / 2)


def test_same_tokens_that_are_done_are_said_to_be(history):
    assert "done before, kept" in history.again and history.untouched


def test_same_tokens_of_one_more_seed_are_the_new_seed_alone(history):
    assert is_kept(history.compared, history.more) and len(history.more) == len(history.compared) + 4
    before = {(run["arm"], run["tokens"], run["seed"]): run for run in history.quality["runs"]}
    after = {(run["arm"], run["tokens"], run["seed"]): run for run in history.more_quality["runs"]}
    assert {key: after[key] for key in before} == before
    assert {seed for _, _, seed in set(after) - set(before)} == {1339} and len(after) == 12


def test_search_and_same_tokens_trials_are_children_of_their_stages_once_each(history):
    client = history.client
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    stages = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    below: dict[str, list[Any]] = {one: [] for one in stages}
    for run in runs:
        if parent := run.data.tags.get("mlflow.parentRunId"):
            below[parent].append(run)
    told = sorted((stages[one].info.run_name, len(children)) for one, children in below.items())
    assert told == [("compare_quality", 8), ("compare_quality", 12), ("search_recipes", 4), ("search_recipes", 4)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for one, children in below.items():
        assert len({run.data.tags["work"] for run in children}) == len(children), stages[one].info.run_name
        for run in children:
            assert run.data.tags["outcome"] in ("finished", "stopped") and run.data.params["training.schedule"] == "wsd"
            points = client.get_metric_history(run.info.run_id, "val_loss_nats")
            if run.data.tags["outcome"] == "finished":
                assert points[-1].value == run.data.metrics["final_val_loss_nats"]


def test_search_trials_half_told_by_a_process_that_died_are_told_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([f"tracking.uri=sqlite:///{tmp_path}/runs.db", f"tracking.artifact_dir={tmp_path}/artifacts"])
    telling = ("a trial", "its work", {"x": 1}, [(1, {"val_loss_nats": 3.0})], {"tokens": 2.0}, "finished")
    client = None
    for attempt in range(3):
        with open_tracker(config).stage("search_recipes", config, "work") as log:
            if client is None:
                client = MlflowClient(f"sqlite:///{tmp_path}/runs.db")
            if attempt == 0:  # dies behind its first call to the store
                monkeypatch.setattr(type(log), "log_params", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    log.log_trial(*telling)
                monkeypatch.undo()
                monkeypatch.chdir(tmp_path)
            else:
                log.log_trial(*telling)
                log.log_trial(*telling)
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'a trial'")
    assert [run.info.status for run in runs] == ["FINISHED"] and runs[0].data.metrics["tokens"] == 2.0


def test_search_trial_that_was_stopped_and_is_run_to_its_end_stays_one_child(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose([f"tracking.uri=sqlite:///{tmp_path}/runs.db", f"tracking.artifact_dir={tmp_path}/artifacts"])
    rows = [(step, {"val_loss_nats": 4.0 - step}) for step in (1, 2)]
    stopped = ("a trial", "its work", {"x": 1}, rows[:1], {"tokens": 1.0}, "stopped")
    finished = ("a trial", "its work", {"x": 1}, rows, {"tokens": 2.0, "final_val_loss_nats": 2.0}, "finished")
    for telling in ([stopped, stopped], [finished, finished]):  # by two commands
        with open_tracker(config).stage("search_recipes", config, "work") as log:
            with monkeypatch.context() as failing, pytest.raises(ZeroDivisionError):  # the store fails for a moment
                failing.setattr(type(log), "log_metrics", lambda *_: 1 / 0)
                log.log_trial(*telling[0])
            for one in telling:
                log.log_trial(*one)
    client = MlflowClient(config.tracking.uri)
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'a trial'")
    assert (run.info.status, run.data.tags["outcome"]) == ("FINISHED", "finished")
    assert (run.data.metrics["tokens"], run.data.metrics["final_val_loss_nats"]) == (2.0, 2.0)
    points = client.get_metric_history(run.info.run_id, "val_loss_nats")
    assert [(one.step, one.value) for one in points] == [(1, 3.0), (2, 2.0)]
