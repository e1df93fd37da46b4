"""Faults injected into training through Ray: every one is a clear end or none, and the same command goes on exactly."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import torch
from mlflow import MlflowClient

from tests.integration.test_ray_training import ROOT, command
from tests.token_folder import write_token_folder
from tests.unit.test_training import job, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 2000
SETTINGS = [f"training.steps={STEPS}", "training.eval_interval=1000", "cluster.checkpoint_interval=50"]
EXACT = ("loss_nats", "learning_rate", "gradient_norm")
SERIES = {"loss_nats": "train", "val_loss_nats": "validation"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


class Driver:
    """One `python -m stages.train`, what it says, and the processes that Ray runs for it."""

    def __init__(self, words: list[str], folder: Path, home: Path | None = None) -> None:
        self.folder = folder
        self._out = (folder / "stdout").open("w+")
        self._err = (folder / "stderr").open("w+")
        environment = os.environ | ({"HOME": str(home)} if home else {})
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=self._out, stderr=self._err, env=environment)

    def log(self) -> list[dict[str, Any]]:
        found = list(self.folder.glob("runs/demo/demo_*/log.jsonl"))
        lines = found[0].read_text().splitlines(keepends=True) if found else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def last_step(self) -> int:
        return max((record["step"] for record in self.log()), default=0)

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("runs/demo/demo_*/checkpoints/step-*"))

    def wait_for(self, condition: Callable[[], object], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.05)

    def train_on(self, steps: int) -> None:
        """Wait until `steps` more are taken."""
        first = self.last_step()
        self.wait_for(lambda: self.last_step() >= first + steps)

    def family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def named(self, name: str) -> list[psutil.Process]:
        found = []
        for one in self.family():
            with contextlib.suppress(psutil.Error):
                if name in (one.name(), *one.cmdline()[:1]):
                    found.append(one)
        return found

    def ends(self, seconds: float = 120) -> int:
        return self.process.wait(seconds)

    def said(self) -> str:
        return Path(self._out.name).read_text()

    def errors(self) -> str:
        return Path(self._err.name).read_text()


class TrackingServer:
    """A real `mlflow server` on loopback, killed and started again on one store."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.store, self._artifacts = f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", self.store, "--artifacts-destination", str(self._artifacts), "--workers", "1"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.1)
        raise AssertionError("mlflow server did not start")

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 16 MB at `folder`."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until the disk has no byte left."""
    with path.open("wb", buffering=0) as file:
        for block in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * block):
                    pass


@pytest.fixture(scope="module")
def history(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One training that meets six faults, the same command each time, and one that meets none."""
    folder = tmp_path_factory.mktemp("faults")
    seen: dict[str, Any] = {}

    def undisturbed() -> None:
        torch.set_num_threads(1)
        seen["state"] = run(job(tokens, folder / "undisturbed", *SETTINGS))

    with small_disk(folder / "runs"), contextlib.ExitStack() as at_the_end:
        reference = threading.Thread(target=undisturbed)
        reference.start()
        at_the_end.callback(reference.join)
        server = TrackingServer(folder)
        at_the_end.callback(lambda: server.kill())
        tracked = [f"tracking.uri={server.uri}", "tracking.system_metrics=false"]
        words = command(tokens, folder, *SETTINGS, "cluster.cpus_per_worker=1", *tracked, tracking="tracking=mlflow")

        driver = Driver(words, folder)
        at_the_end.callback(lambda: driver.process.kill())
        driver.wait_for(lambda: len(driver.checkpoints()) >= 1)
        driver.train_on(20)
        (worker,) = driver.named("ray::RayTrainWorker")
        seen["killed worker"] = worker.pid
        worker.kill()
        driver.wait_for(lambda: any(one.pid != worker.pid for one in driver.named("ray::RayTrainWorker")))
        driver.train_on(20)

        server.kill()
        driver.train_on(100)
        (worker,) = driver.named("ray::RayTrainWorker")
        worker.suspend()  # no steps while the server comes up: this disk is for a few only
        driver.wait_for(lambda: "tracking failed" in driver.said())
        server.start()
        seen["checkpoints before"] = driver.checkpoints()
        fill(folder / "runs" / "filler")
        worker.resume()
        began = time.monotonic()
        seen["full disk"] = (driver.ends(), driver.said(), driver.errors(), time.monotonic() - began)
        seen["checkpoints after"] = driver.checkpoints()
        (folder / "runs" / "filler").unlink()

        driver = Driver(words, folder)
        driver.wait_for(lambda: "resuming" in driver.said())
        driver.train_on(20)
        (head,) = driver.named("gcs_server")
        head.kill()
        seen["no head"] = (driver.ends(), driver.said(), driver.errors(), 0)

        driver = Driver(words, folder)
        driver.wait_for(lambda: "resuming" in driver.said())
        driver.train_on(20)
        driver.process.kill()
        driver.ends()
        seen["no driver"] = driver.last_step()

        driver = Driver(words, folder)
        seen["end"] = (driver.ends(300), driver.said(), driver.errors(), 0)
        seen["log"] = driver.log()
        seen["result"] = json.loads(next(folder.glob("results/demo/*/training.json")).read_text())
        reference.join()
        seen["reference"] = [json.loads(line) for line in (folder / "undisturbed/log.jsonl").read_text().splitlines()]
        seen["client"] = MlflowClient(server.store)
        yield seen


def test_fault_a_killed_worker_is_started_again(history):
    assert history["full disk"][1].count("resuming") == 0  # the first command went on by itself
    assert "tracking failed, training goes on" in history["full disk"][1]


def test_fault_a_full_disk_ends_the_run_at_once_with_one_message(history):
    code, _, errors, seconds = history["full disk"]
    last = errors.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in errors, errors
    assert re.search(r"^error: training demo_kraken_4way stopped: cannot write .*[Nn]o space left on device", last), (
        last
    )
    assert seconds < 60  # two more attempts would take longer
    assert history["checkpoints before"] == history["checkpoints after"]


def test_fault_without_rays_head_the_run_ends_with_one_message(history):
    code, _, errors, _ = history["no head"]
    assert code == 1
    assert errors.strip().splitlines()[-1] == (
        "error: training demo_kraken_4way failed: Ray's gcs_server ended; "
        "the same command goes on from the last checkpoint"
    )
    assert "Traceback" not in errors


def test_resume_after_all_faults_is_bit_for_bit_the_undisturbed_run(history):
    code, said, errors, _ = history["end"]
    assert code == 0, errors
    assert "resuming from step" in said
    assert history["no driver"] < STEPS  # it was cut short
    ours, theirs = ([one for one in history[name] if one["kind"] == "train"] for name in ("log", "reference"))
    assert [one["step"] for one in ours] == list(range(1, STEPS + 1))
    assert [[one[key] for key in EXACT] for one in ours] == [[one[key] for key in EXACT] for one in theirs]
    ours, theirs = ([one for one in history[name] if one["kind"] != "train"] for name in ("log", "reference"))
    assert ours == theirs  # validation losses and text samples
    assert [[point[key] for key in EXACT] for point in history["result"]["curve"]] == [
        [one[key] for key in EXACT] for one in history["reference"] if one["kind"] == "train"
    ]


@pytest.mark.parametrize("metric", SERIES)
def test_resume_shows_one_tracked_run_with_every_step_once(history, metric):
    client = history["client"]
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.status == "FINISHED"
    points = sorted((one.step, one.value) for one in client.get_metric_history(tracked.info.run_id, metric))
    log = [(one["step"], one["loss_nats"]) for one in history["log"] if one["kind"] == SERIES[metric]]
    assert points == log


def test_fault_a_rank_that_stops_answering_ends_the_run_and_nothing_listens_outside(tokens, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    workers = ["cluster.num_workers=2", "cluster.cpus_per_worker=1", "cluster.micro_batch_size=2"]
    patience = ["cluster.collective_timeout_minutes=0.25", "cluster.max_failures=0"]
    words = command(tokens, tmp_path, "training.steps=800", *workers, *patience)
    driver = Driver(words, tmp_path, home)
    driver.wait_for(lambda: len(driver.checkpoints()) >= 1)
    stopped = driver.named("ray::RayTrainWorker")[0]
    stopped.suspend()
    at = time.monotonic()

    listening = [
        (one.name(), place.laddr)
        for one in driver.family()
        for place in one.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    ]
    assert {name for name, _ in listening} >= {"gcs_server", "raylet", "ray::RayTrainWorker"}
    assert {place.ip for _, place in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
    assert not list(home.rglob("*token*"))
    asking = (
        "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)"
    )
    port = next(place.port for name, place in listening if name == "gcs_server")
    stranger = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    asked = subprocess.run(
        [sys.executable, "-c", asking, f"127.0.0.1:{port}"], capture_output=True, text=True, env=stranger
    )
    assert asked.returncode and "nauthenticated" in asked.stderr, asked.stderr[-500:]

    assert driver.ends() == 1
    assert time.monotonic() - at < 90
    last = driver.errors().strip().splitlines()[-1]
    assert re.search(r"waited longer than cluster\.collective_timeout_minutes=0\.25 for another worker", last), last
    assert "Traceback" not in driver.errors()
    assert list(tmp_path.glob("runs/demo/demo_*/flight_recorder"))
    assert not stopped.is_running()

    driver = Driver(words, tmp_path, home)
    assert driver.ends() == 0, driver.errors()
    assert "resuming from step" in driver.said()
    assert [one["step"] for one in driver.log() if one["kind"] == "train"] == list(range(1, 801))


IN_A_GROUP = """
import json, os, sys
from datetime import timedelta
from pathlib import Path
import psutil, torch, torch.distributed as dist
from pipeline.training.ray_group import GroupConfig, _join, _listen, environment

config = GroupConfig(backend="gloo", timeout_s=7.5, variables=environment(Path(sys.argv[1])))
_join(0, 1, _listen(), config)
dist.all_reduce(torch.ones(2))
groups = [dist.group.WORLD, dist.new_group([0])]
print(json.dumps({
    "timeouts": [group._get_backend(torch.device("cpu")).options._timeout.total_seconds() for group in groups],
    "variables": {name: os.environ[name] for name in config.variables},
    "listening": [one.laddr.ip for one in psutil.Process().net_connections("inet") if one.status == "LISTEN"],
}))
"""


def test_fault_settings_reach_every_process_group(tmp_path):
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "TORCH_FR_BUFFER_SIZE": "77"}
    words = [sys.executable, "-c", IN_A_GROUP, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    found = json.loads(done.stdout)
    assert found["timeouts"] == [7.5, 7.5]
    assert found["variables"] == {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_BUFFER_SIZE": "77",  # the user's own
        "TORCH_FR_DUMP_TEMP_FILE": str(tmp_path / "flight_recorder" / "rank_"),
    }
    assert (tmp_path / "flight_recorder").is_dir()
    assert set(found["listening"]) == {"127.0.0.1"}
