"""stages.train through Ray for real: one rank, two gloo ranks, a kill, and a loss that is no number."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.token_folder import data_overrides, write_token_folder
from tests.unit.test_training import TINY

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def command(tokens: Path, folder: Path, *changes: str, tracking: str = "tracking=none") -> list[str]:
    outputs = [f"paths.{name}={folder}/{name}" for name in ("trained", "runs", "results")]
    where = [f"paths.data={tokens.parent}", *data_overrides(tokens), tracking]
    return [sys.executable, "-m", "stages.train", *TINY, *where, *outputs, *changes]


def training(tokens: Path, folder: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tokens, folder, *changes), capture_output=True, text=True, cwd=ROOT)


def result(folder: Path) -> dict:
    (path,) = folder.glob("results/demo/demo_kraken_4way~*/training.json")
    return json.loads(path.read_text())


def published(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("trained/demo/demo_kraken_4way~*/model.safetensors")
    assert (path.parent / "tokenizer.json").is_file()
    return load_file(path)


def test_gloo_ranks_train_what_one_trains(tokens, tmp_path):
    """Copies whose state is sharded, and the ranks of one copy; both up to the published model."""
    one = training(tokens, tmp_path / "one")
    assert one.returncode == 0, one.stderr[-3000:]
    assert "ETA" in one.stdout and "validation loss" in one.stdout
    ours, weights = result(tmp_path / "one"), published(tmp_path / "one")
    sharded = ("cluster.num_workers=2", "cluster.fsdp=true", "cluster.cpus_per_worker=1", "cluster.micro_batch_size=2")
    for name, changes in (("sharded", sharded), ("ranks", ("cluster.tp_size=2",))):
        done = training(tokens, tmp_path / name, *changes)
        assert done.returncode == 0, done.stderr[-3000:]
        theirs = result(tmp_path / name)
        assert (theirs["ranks"], theirs["tp_size"], theirs["fsdp"]) == (2, 1 + (name == "ranks"), name == "sharded")
        for a, b in zip(ours["curve"], theirs["curve"], strict=True):
            assert a["loss_nats"] == pytest.approx(b["loss_nats"], abs=1e-5)
        assert ours["val_loss_nats"] == pytest.approx(theirs["val_loss_nats"], abs=1e-5)
        for key, tensor in published(tmp_path / name).items():
            assert torch.allclose(tensor, weights[key], atol=1e-4), key


def test_a_killed_run_goes_on_from_its_checkpoint(tokens, tmp_path):
    long = ("training.steps=3000", "training.eval_interval=3000", "cluster.checkpoint_interval=5")
    process = subprocess.Popen(
        command(tokens, tmp_path, *long), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/demo/*/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)  # Ray's own processes end with their driver
    saved = sorted(path.name for path in tmp_path.glob("runs/demo/*/checkpoints/step-*"))[-1]
    step = int(saved.split("-")[1])
    run_folder = next(tmp_path.glob("runs/demo/demo_*"))
    steps = [json.loads(line)["step"] for line in (run_folder / "log.jsonl").read_text().splitlines()]
    assert max(steps) - step <= 5 + 1  # at most one checkpoint interval is lost, and the step in flight

    rarely = (*long, "cluster.checkpoint_interval=100000")  # from here on, only a signal saves
    process = subprocess.Popen(
        command(tokens, tmp_path, *rarely), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("resuming"):
            break
    assert line.strip() == f"resuming from step {step}"
    next_line = process.stdout.readline()
    assert next_line.startswith(f"step {step + 1:>4}/3000"), next_line
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    last = [json.loads(line)["step"] for line in (run_folder / "log.jsonl").read_text().splitlines()][-1]
    saved = sorted(path.name for path in run_folder.glob("checkpoints/step-*"))[-1]
    assert int(saved.split("-")[1]) >= last  # nothing is lost to a signal
    assert errors.strip().splitlines()[-1] == "interrupted; the same command goes on where it stopped"
    assert "Traceback" not in errors


SEES_OTHER_FOLDERS = """
import os
import sys
from pathlib import Path
import torch.distributed as dist
import torch.multiprocessing as processes
from dataclasses import replace
from pipeline.errors import CheckpointError
from pipeline.training.job import Worker
from pipeline.training.loop import train
from tests.unit.test_training import job

def rank_of(rank, tokens, folder, case, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    the_job = job(Path(tokens), Path(folder, "own" if rank == 0 or case == "missing" else "elsewhere"),
                  "cluster.num_workers=2", "cluster.micro_batch_size=2", "training.steps=6")
    if case == "missing" and rank == 1:  # what rank 0 resumes from is not whole here
        from pipeline.training import checkpoint
        whole = checkpoint.restore
        def lacking(run_folder, step, state):
            return whole(run_folder.parent / "nothing", step, state)
        checkpoint.restore = lacking
    try:
        train(the_job, Worker(rank, 2), lambda report: None)
        outcome = "trained"
    except CheckpointError as error:
        outcome = f"rank {rank}: {error}"
    os.write(1, (outcome + os.linesep).encode())  # in one piece: the ranks share the stream
    dist.destroy_process_group()

if __name__ == "__main__":
    processes.spawn(rank_of, sys.argv[1:], nprocs=2)
"""


@pytest.mark.parametrize(("case", "text"), [("apart", "must lie on a disk that all"), ("missing", "cannot read what")])
def test_fault_workers_that_see_other_folders_do_not_train(tokens, tmp_path, case, text):
    script = tmp_path / "ranks.py"
    script.write_text(SEES_OTHER_FOLDERS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    (tmp_path / "elsewhere").mkdir()
    if case == "missing":  # a checkpoint to resume from
        from tests.unit.test_training import job, run

        run(job(tokens, tmp_path / "own", "training.steps=4"))
    arguments = [sys.executable, str(script), str(tokens), str(tmp_path), case, str(tmp_path / "store")]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == 2 and all("rank 1 " in line and text in line for line in lines), done.stdout


def test_a_loss_that_is_no_number_ends_the_run_with_one_message(tokens, tmp_path):
    done = training(tokens, tmp_path, "training.learning_rate=1e30", "training.warmup_steps=1")
    assert done.returncode == 1
    assert "the weights were not changed" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("trained/**/*.safetensors"))
    assert not list(tmp_path.glob("results/demo/*/*"))


def test_what_is_missing_is_found_before_ray_starts(tokens, tmp_path):
    started = time.monotonic()
    done = training(tokens, tmp_path, "data.name=nowhere")
    assert done.returncode == 2 and "nowhere" in done.stderr
    assert time.monotonic() - started < 60
    assert not (tmp_path / "runs").exists()


def test_ray_starts_twice_in_a_process_and_in_one_arena():
    """Ray keeps the first token; a training thread finds freed memory again only where there is one arena."""
    code = (
        "import os; from pipeline.compose import compose; from pipeline.training import ray_launcher as launcher\n"
        "cluster = compose(['model=demo_standard']).cluster\n"
        "launcher.start(cluster); launcher.shutdown(); launcher.start(cluster)\n"
        "import ray; print('arenas', ray.get(ray.remote(lambda: os.environ['MALLOC_ARENA_MAX']).remote()))\n"
        "assert 'MALLOC_ARENA_MAX' not in os.environ; launcher.shutdown()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "arenas 1" in done.stdout, done.stderr[-2000:]


def test_fault_ray_imported_first_is_one_message():
    code = (
        "import ray; from pipeline.compose import compose; from pipeline.training import ray_launcher\n"
        "ray_launcher.start(compose(['model=demo_standard']).cluster)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "RunError: ray was imported in this process before" in done.stderr
