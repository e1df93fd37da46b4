"""What surrounds the loop: the run's identity, its lock and log, checks before work, failing writes."""

import json
import resource
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import files
from pipeline.compose import compose
from pipeline.errors import CheckpointError, DataError, MissingRequirementError, OutputError, PipelineError
from pipeline.models import build_model
from pipeline.training import checkpoint, origin
from pipeline.training import run as runs
from pipeline.training.lock import run_lock
from pipeline.training.log import LogTail, RunLog, text_line
from pipeline.training.optimizer import make_optimizer
from pipeline.training.ray_launcher import check_resources, cpus_per_worker
from pipeline.training.state import TrainingState
from tests.token_folder import write_token_folder
from tests.unit.test_training import TINY, job

HOLD = """
import sys, time, pathlib
from pipeline.training.lock import run_lock
with run_lock(pathlib.Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def stepped_state() -> TrainingState:
    """A tiny model after one optimizer step."""
    config = compose(TINY)
    model = build_model(config.model)
    state = TrainingState(model, make_optimizer(model, config.training), "a-fingerprint")
    model(torch.zeros(1, 4, dtype=torch.long)).square().mean().backward()
    state.optimizer.step()
    state.step = 1
    return state


def test_other_tokens_are_another_run(tokens, tmp_path):
    code = {"pipeline/models": "12ab"}
    settings, others = {"training": {"steps": 12}}, {"training": {"steps": 20}}
    first = runs.identity(settings, tokens, code)
    assert first == runs.identity(settings, tokens, code) != runs.identity(others, tokens, code)
    changed = runs.identity(settings, tokens, {"pipeline/models": "34cd"})
    assert changed != first and changed.split("-")[0] == first.split("-")[0]
    manifest = files.read_json(tokens / "manifest.json")
    manifest["shards"][0]["sha256"] = "0" * 64
    files.write_json(tmp_path / "manifest.json", manifest)
    assert runs.identity(settings, tmp_path, code) != first


def test_a_run_knows_the_commits_that_took_its_steps(tmp_path):
    folder = tmp_path / "demo-settings-code"
    origin.note(folder, "a")
    assert origin.read(folder) == [{"commit": "a", "from_step": 0}]
    origin.note(folder, "b")  # nothing of a's was kept
    assert origin.read(folder) == [{"commit": "b", "from_step": 0}]
    (folder / "checkpoints/step-000000040").mkdir(parents=True)
    origin.note(folder, "b")
    origin.note(folder, "c")
    assert origin.read(folder) == [{"commit": "b", "from_step": 0}, {"commit": "c", "from_step": 40}]
    other, finished = tmp_path / "demo-settings-other", tmp_path / "demo-settings-done"
    for run_folder, step in ((other, 20), (finished, 100)):
        (run_folder / f"checkpoints/step-{step:09d}").mkdir(parents=True)
    assert origin.unfinished_by_other_code(folder, 100) == [(other, 20)]


def test_a_run_folder_has_one_writer(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match="in use"), run_lock(tmp_path, 0.3):
        pass
    holder.kill()
    started = time.monotonic()
    with run_lock(tmp_path, 20):
        assert time.monotonic() - started < 20
    holder.wait()


def test_a_tail_hands_out_each_record_once(tmp_path):
    log = RunLog(tmp_path)
    tail = LogTail(log)
    assert tail.new_records() == []
    for step in (1, 2, 3):
        log.append({"kind": "train", "step": step})
    with log.path.open("a") as file:
        file.write('{"kind": "validation", "st')  # the worker is in the middle of a line
    assert [record["step"] for record in tail.new_records()] == [1, 2, 3]
    with log.path.open("a") as file:
        file.write('ep": 3}\n')
    assert [record["kind"] for record in tail.new_records()] == ["validation"]
    log.truncate(1)  # a worker failed and resumed from step 1
    for step in (2, 3, 4):
        log.append({"kind": "train", "step": step})
    assert [record["step"] for record in tail.new_records()] == [4]
    assert [record["step"] for record in log.read()] == [1, 2, 3, 4]


def test_lines_say_what_was_left_out_and_who_is_slow():
    skipped = {"kind": "skipped", "step": 7, "loss_nats": "nan", "gradient_norm": "inf", "windows": [96, 480]}
    assert text_line(skipped, 12) == "step  7/12  left out: loss nan, grad inf, windows from tokens [96, 480]"
    rates = {"loss_nats": 5.0, "learning_rate": 1e-3, "gradient_norm": 1.0, "tokens_per_s": 9.0, "mfu": None}
    record = {"kind": "train", "step": 7, **rates, "memory_bytes": 1e9, "eta_s": 60, "slowest_rank": 3}
    assert text_line({**record, "slowest_ratio": 1.5}, 12).endswith("ETA 1m00s  rank 3 takes 1.5x the median")
    assert text_line({**record, "slowest_ratio": 1.05}, 12).endswith("ETA 1m00s")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (["model.block_size=1000000"], DataError, "block_size=1000000"),
        (["cluster.device=cuda", "cluster.num_workers=999"], MissingRequirementError, "999 GPUs"),
        (["cluster.cpus_per_worker=1", "cluster.num_workers=999"], MissingRequirementError, "999 CPUs"),
    ],
)
def test_what_cannot_run_is_said_before_work(tokens, tmp_path, changes, error, text):
    fitting = ["training.global_batch_size=999", "cluster.micro_batch_size=1"]
    the_job = job(tokens, tmp_path, *fitting, *changes)
    with pytest.raises(error, match=text) as caught:
        runs.check_before(the_job)
    assert isinstance(caught.value, PipelineError) and caught.value.exit_code == 2


def test_fault_a_damaged_checkpoint_is_said_and_set_aside(tokens, tmp_path):
    """The commits of its steps, and the step a resume begins at, are then those of the one before."""
    the_job = job(tokens, tmp_path)
    for step in (6, 8):
        state = runs._empty_state(the_job)
        state.step = state.skipped = step
        checkpoint.save(tmp_path, state)
    newest = checkpoint.checkpoints(tmp_path)[-1]
    (newest / "model-0-0.safetensors").write_bytes(b"")
    said: list[str] = []
    runs.check_before(the_job, said.append)
    assert len(said) == 1 and "step-000000008 is damaged" in said[0] and "going on from step 6" in said[0]
    assert origin.last_step(tmp_path) == 6 and (newest.parent / f"damaged-{newest.name}").is_dir()


def test_workers_share_all_cores_evenly():
    cluster = compose(["cluster.num_workers=4", "cluster.micro_batch_size=1", "training.global_batch_size=4"]).cluster
    check_resources(cluster)  # four workers on fewer cores get a part of one each
    assert cpus_per_worker(cluster) > 0


def test_time_in_steps_counts_every_step_once(tokens, tmp_path):
    the_job = job(tokens, tmp_path)  # 4 windows of 32 tokens a step
    records = [
        {"step": 5, "tokens_per_s": 128.0},
        {"step": 10, "tokens_per_s": 64.0},
        {"step": 12, "tokens_per_s": 256},
    ]
    assert runs._stepping_s(the_job, records) == pytest.approx(5 * 1 + 5 * 2 + 2 * 0.5)


def test_a_checkpoint_without_all_moments_is_damaged(tmp_path):
    state = stepped_state()
    folder = checkpoint.save(tmp_path, state)
    moments = load_file(folder / "optimizer-0-0.safetensors")
    moments.pop("exp_avg_sq.wte.weight")
    save_file(moments, folder / "optimizer-0-0.safetensors")
    body = files.read_json(folder / "state.json")
    body["sha256"]["optimizer-0-0.safetensors"] = files.sha256_of(folder / "optimizer-0-0.safetensors")
    files.write_json(folder / "state.json", body)
    with pytest.raises(CheckpointError, match=r"damaged.*exp_avg_sq\.wte\.weight"):
        checkpoint.restore_latest(tmp_path, stepped_state())


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    state = stepped_state()
    kept = checkpoint.save(tmp_path, state)
    state.step = 2
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))  # as if the disk were full
    try:
        with pytest.raises(OutputError, match="cannot write"):
            checkpoint.save(tmp_path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert checkpoint.checkpoints(tmp_path) == [kept]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [kept.name]
    assert json.loads((kept / "state.json").read_text())["step"] == 1


def test_a_failing_tracker_does_not_end_training(tokens, tmp_path):
    def broken(records):
        raise ConnectionError("no answer")

    shown: list[str] = []
    follower = runs._Follower(job(tokens, tmp_path), shown.append, broken)
    RunLog(tmp_path).append({"kind": "validation", "step": 6, "loss_nats": 5.0})
    follower.catch_up()
    follower.catch_up()
    complaint = "tracking failed, training goes on and will try again: no answer"
    assert shown == ["step  6/12  validation loss 5.0000 nats", complaint]  # said once


def test_fault_a_tracker_that_comes_back_gets_every_record(tokens, tmp_path):
    """Also in the next process, and none twice."""
    the_job, got, down = job(tokens, tmp_path), [], [True]
    (tmp_path / "checkpoints/step-000000008").mkdir(parents=True)

    def tracker(records):
        if down[0]:
            raise ConnectionError("no answer")
        got.extend((record["step"], record["kind"]) for record in records)

    log = RunLog(tmp_path)
    log.append({"kind": "validation", "step": 4, "loss_nats": 5.0})
    first = runs._Follower(the_job, lambda line: None, tracker)
    first.catch_up()
    log.append({"kind": "validation", "step": 6, "loss_nats": 5.0})
    first.catch_up()
    assert got == []
    down[0] = False
    second = runs._Follower(the_job, lambda line: None, tracker)  # the driver was killed meanwhile
    second.catch_up()
    assert got == [(4, "validation"), (6, "validation")]
    log.append({"kind": "sample", "step": 6, "text": "later in the same step"})
    second.catch_up()
    runs._Follower(the_job, lambda line: None, tracker).catch_up()
    assert got == [(4, "validation"), (6, "validation"), (6, "sample")]
