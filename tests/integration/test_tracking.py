"""MLflow for real, on SQLite in a temporary folder."""

import socket
import subprocess
import sys
import time

import pytest

from pipeline.compose import compose
from pipeline.errors import OutputError
from pipeline.experiment.experiment import load
from pipeline.tracking import open_tracker, ui_command

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [f"tracking.uri=sqlite:///{tmp_path}/runs.db", f"tracking.artifact_dir={tmp_path}/artifacts"]


def test_one_parent_with_a_child_a_stage_and_restarts_go_on_in_it(store, tmp_path):
    import mlflow

    loaded = load(["+experiment=kraken_tp4", *store, "tracking.system_metrics_interval_s=0.2"])
    config = loaded.config
    curve = tmp_path / "curve.txt"
    curve.write_text("loss")
    for attempt in range(2):  # the second is a restart
        tracker = open_tracker(config)
        with tracker.experiment(config, loaded.key), tracker.stage("train demo_standard", config) as log:
            log.log_series([(step, {"loss_nats": 5.0 - step}) for step in range(attempt * 2, attempt * 2 + 2)])
            log.log_metrics({"val_loss_nats": 3.0})
            log.log_artifact(curve)

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("kraken_tp4")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId")]
    assert len(parents) == 1 and len(children) == 1
    child = children[0]
    assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert child.data.params["model.n_head"] == str(config.model.n_head)
    history = client.get_metric_history(child.info.run_id, "loss_nats")
    assert [(metric.step, metric.value) for metric in history] == [(0, 5.0), (1, 4.0), (2, 3.0), (3, 2.0)]
    assert {item.path for item in client.list_artifacts(child.info.run_id)} == {"config.json", "curve.txt"}


OPEN = (
    "import sys; from pipeline.compose import compose; from pipeline.tracking import open_tracker;"
    "c = compose(sys.argv[1:]);\n"
    "with open_tracker(c).stage('train', c, 'the work') as log: log.log_metrics({'x': 1.0})"
)


def test_three_that_start_at_once_on_a_new_store_all_get_on(store):
    started = [
        subprocess.Popen([sys.executable, "-c", OPEN, *store], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-2000:]
    subprocess.run([sys.executable, "-c", OPEN, *store], check=True)  # and the store is whole


def test_work_of_other_settings_is_another_run_and_what_died_is_not_running(store):
    import mlflow

    held = OPEN.replace("log.log_metrics({'x': 1.0})", "(print('held', flush=True), __import__('time').sleep(600))")
    process = subprocess.Popen([sys.executable, "-c", held, *store], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() != "held\n":
        assert process.poll() is None
    process.kill()
    process.wait()
    config = compose(store)
    with open_tracker(config).stage("train", config, "other work") as log:
        log.log_metrics({"x": 2.0}, step=1)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("stages run on their own")
    runs = {run.data.tags["work"]: run for run in client.search_runs([experiment.experiment_id])}
    assert {work: run.info.status for work, run in runs.items()} == {"the work": "KILLED", "other work": "FINISHED"}
    subprocess.run([sys.executable, "-c", OPEN, *store], check=True)  # the killed work goes on in its own run
    again = client.search_runs([experiment.experiment_id])
    assert len(again) == 2 and {run.info.status for run in again} == {"FINISHED"}


def test_a_server_that_is_gone_is_said_soon():
    with socket.socket() as unused:  # bound, not listening: refuses
        unused.bind(("127.0.0.1", 0))
        config = compose([f"tracking.uri=http://127.0.0.1:{unused.getsockname()[1]}"])
        started = time.monotonic()
        with pytest.raises(OutputError, match="cannot open the MLflow store"):
            open_tracker(config)
        assert time.monotonic() - started < 60


def test_a_store_that_cannot_be_opened_is_one_message(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    config = compose([f"tracking.uri=sqlite:///{tmp_path}/file/runs.db"])
    with pytest.raises(OutputError, match=r"tracking\.uri="):
        open_tracker(config)


def test_no_tracking_imports_no_mlflow():
    script = (
        "import sys; from pipeline.compose import compose; from pipeline.tracking import open_tracker;"
        "c = compose(['tracking=none']);\n"
        "with open_tracker(c).stage('train', c) as log: log.log_metrics({'x': 1.0})\n"
        "assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_ui_command_names_the_store():
    assert ui_command(compose([])) == "mlflow ui --backend-store-uri sqlite:///mlflow.db"
    assert ui_command(compose(["tracking=none"])) is None
