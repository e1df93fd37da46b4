"""MLflow for real, on SQLite in a temporary folder."""

import subprocess
import sys

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
