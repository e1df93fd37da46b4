"""python -m pipeline for real, small: every stage, then again with nothing to do."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "+experiment=kraken_tp2",
    "data.source=[numpy]",
    "data.max_bytes=600000",
    "data.tokenizer_vocab_size=512",
    "training.steps=4",
    "training.warmup_steps=1",
    "training.global_batch_size=4",
    "training.eval_interval=4",
    "training.eval_windows=4",
    "cluster.micro_batch_size=4",
    "cluster.checkpoint_interval=2",
    "model.n_layer=2",
    "evaluation.limit=2",
    "evaluation.bootstrap_iters=20",
    "benchmark.contexts=[32]",
    "benchmark.warmup_max=2",
    "benchmark.repeats_min=2",
    "benchmark.repeats_max=3",
    "benchmark.time_limit_s=20",
    "benchmark.trace=false",
]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    paths = [f"paths.{name}={folder}/{name}" for name in ("data", "trained", "runs", "engines", "results", "report")]
    store = [f"tracking.uri=sqlite:///{folder}/mlflow.db", f"tracking.artifact_dir={folder}/mlartifacts"]
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *SMALL, *paths, *store, *more], capture_output=True, text=True, cwd=ROOT
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_experiment_from_text_to_report_and_again(tmp_path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    assert (tmp_path / "report/index.html").exists()
    assert "mlflow ui" in first.stdout and "report/index.html" in first.stdout
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["scale"] == "demo"
    for model in ("demo_standard", "demo_parallel", "demo_kraken_2way"):
        (path,) = tmp_path.glob(f"results/demo/{model}~*/perplexity.json")
        body = json.loads(path.read_text())
        assert body["loss_nats"] > 0
        assert {"settings", "code", "inputs", "commit"} <= set(body["provenance"])

    started = time.monotonic()
    second = run(tmp_path)
    assert second.returncode == 0, second.stderr[-4000:]
    done = [line for line in second.stdout.splitlines() if "done before" in line]
    assert len(done) == 14  # everything but prepare_data, which looks for itself, and the report
    assert time.monotonic() - started < 60

    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("kraken_tp2")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) - len(children) == 1
    trained = [child for child in children if child.info.run_name == "train demo_kraken_2way"]
    assert trained and client.get_metric_history(trained[0].info.run_id, "loss_nats")


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "results").write_text("a file where a folder should be")
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write to") and "Traceback" not in done.stderr


def test_a_dry_run_does_nothing(tmp_path):
    done = run(tmp_path, "debug=dry_run")
    assert done.returncode == 0, done.stderr
    assert "demo_kraken_2way" in done.stdout
    assert not list(tmp_path.iterdir())
