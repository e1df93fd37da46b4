"""Does a killed run go on as if nothing had been, on this device, bit for bit?"""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from benchmarks.gpu.part import Answer, Found, Part, Wanted
from benchmarks.gpu.place import Place
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.training import make_job
from pipeline.errors import RunError
from pipeline.training import checkpoint
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.log import RunLog
from pipeline.training.loop import train

MODEL = "kraken_124m_4way"
# deterministic ones: nothing else, where there are any, whatever is fast
Kernels = Literal["only", "preferred", "free"]
STEPS, KILLED_AT = 20, 10
GLOBAL_BATCH = 16  # in two micro-batches
CHECKPOINT_WAIT_S = 60.0
UNBROKEN = "unbroken"  # a file beside a run that went from its first step to its last in one go
STEP_KEYS = ("loss_nats", "gradient_norm")
WANTED = (
    Wanted("losses identical", "yes/no", 1),
    Wanted("weights and moments identical", "yes/no", 1),
    Wanted("largest difference of a loss", ""),
    Wanted("largest difference of a weight or moment", ""),
    Wanted("losses identical without deterministic kernels", "yes/no"),
    Wanted("largest difference of a loss without deterministic kernels", ""),
)


def part() -> Part:
    def read(settings: Settings) -> dict[str, Any]:
        groups = (settings.training, settings.cluster)
        return {"model": settings.model(MODEL).identity(), "groups": [one.model_dump(mode="json") for one in groups]}

    code = ("benchmarks/gpu/resume.py", "benchmarks/gpu/training.py", "pipeline/training/loop.py")
    question = f"a run of {STEPS} steps killed at {KILLED_AT} and resumed against one that was left alone"
    return Part("resume", question, 3, WANTED, code, read, _run)


def _run(part: Part, place: Place, settings: Settings, folder: Path) -> Answer:
    notes = [f"{MODEL}, {STEPS} steps, kill -9 behind the checkpoint of step {KILLED_AT}"]
    try:
        losses, tensors = _compare(settings, place, folder / "only", "only")
        notes.append("deterministic: torch.use_deterministic_algorithms(True), CUBLAS_WORKSPACE_CONFIG=:4096:8")
    except RunError as error:
        notes.append(f"with deterministic kernels only: {error}; here where there are any")
        losses, tensors = _compare(settings, place, folder / "preferred", "preferred")
    figures = [
        part.figure("losses identical", losses == 0),
        part.figure("weights and moments identical", tensors == 0),
        part.figure("largest difference of a loss", losses),
        part.figure("largest difference of a weight or moment", tensors),
    ]
    if place.device.type == "cuda":
        losses, _ = _compare(settings, place, folder / "free", "free")
        figures += [
            part.figure("losses identical without deterministic kernels", losses == 0),
            part.figure("largest difference of a loss without deterministic kernels", losses),
        ]
    return Found(figures, notes, {})


def _compare(settings: Settings, place: Place, folder: Path, kernels: Kernels) -> tuple[float, float]:
    """Largest differences, of losses and gradient norms, and of weights and moments, between the two runs."""
    unbroken = folder / "whole" / UNBROKEN
    if not unbroken.exists() and unbroken.parent.exists():
        shutil.rmtree(unbroken.parent)  # interrupted: it would go on from its own checkpoint, by what is in question
    whole = _job(settings, place, unbroken.parent)
    if not unbroken.exists():
        _in_process(whole, place.device, kernels, killed_at=0)
        unbroken.touch()
    killed = _job(settings, place, folder / "killed")
    if not checkpoint.checkpoints(killed.run_folder):  # else this part was interrupted behind it
        _in_process(killed, place.device, kernels, killed_at=KILLED_AT)
    if not checkpoint.checkpoints(killed.run_folder):
        raise RunError(f"{killed.run_folder}: no checkpoint to resume from at step {KILLED_AT}")
    _in_process(killed, place.device, kernels, killed_at=0)
    return _loss_difference(whole, killed), _tensor_difference(whole, killed)


def _job(settings: Settings, place: Place, folder: Path) -> TrainingJob:
    batch = min(GLOBAL_BATCH, settings.training.global_batch_size)
    steps = {"steps": STEPS, "eval_interval": STEPS, "global_batch_size": batch, "warmup_steps": 2, "eval_windows": 4}
    saving = {"micro_batch_size": batch // 2, "log_interval": 1, "checkpoint_interval": KILLED_AT}
    return make_job(settings, MODEL, place, folder, **steps, **saving)


def _in_process(job: TrainingJob, device: torch.device, kernels: Kernels, killed_at: int) -> None:
    """Train in a process of its own; raises RunError unless it ends as it should."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train, args=(job, str(device), kernels, killed_at))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    wanted = -signal.SIGKILL if killed_at else 0
    if process.exitcode != wanted:
        raise RunError(f"the run in {job.run_folder} ended with {process.exitcode}, not {wanted}")
    print(f"{job.run_folder.parent.name}: {'killed' if killed_at else 'at its end'}", flush=True)


def _train(job: TrainingJob, device: str, kernels: Kernels, killed_at: int) -> None:
    if kernels != "free":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=kernels == "preferred")

    def report(values: dict[str, float]) -> None:
        if killed_at and values["step"] >= killed_at:
            deadline = time.monotonic() + CHECKPOINT_WAIT_S
            while not checkpoint.checkpoints(job.run_folder) and time.monotonic() < deadline:  # written by a thread
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

    train(job, Worker(device=torch.device(device)), report)


def _loss_difference(whole: TrainingJob, killed: TrainingJob) -> float:
    curves = []
    for job in (whole, killed):
        records = [record for record in RunLog(job.run_folder).read() if record["kind"] == "train"]
        if [record["step"] for record in records] != list(range(1, STEPS + 1)):
            raise RunError(f"{job.run_folder}: its log does not hold each of {STEPS} steps once")
        curves.append([[float(record[key]) for key in STEP_KEYS] for record in records])
    difference = torch.tensor(curves[0], dtype=torch.float64) - torch.tensor(curves[1], dtype=torch.float64)
    return float(difference.abs().max())


def _tensor_difference(whole: TrainingJob, killed: TrainingJob) -> float:
    """Over all tensors of the last checkpoints."""
    ours, theirs = (checkpoint.checkpoints(job.run_folder)[-1] for job in (whole, killed))
    names = sorted(path.name for path in ours.glob("*.safetensors"))
    if not names or names != sorted(path.name for path in theirs.glob("*.safetensors")):
        raise RunError(f"{ours} and {theirs} do not hold the same files")
    largest = 0.0
    for name in names:
        one, other = load_file(ours / name), load_file(theirs / name)
        if one.keys() != other.keys():
            raise RunError(f"{ours / name} and {theirs / name} do not hold the same tensors")
        largest = max([largest, *(float((one[key].double() - other[key].double()).abs().max()) for key in one)])
    return largest
