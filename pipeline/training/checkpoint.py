"""Checkpoints of an unfinished run: safetensors and JSON, one folder a step, the last two kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pipeline import files
from pipeline.errors import CheckpointError, OutputError
from pipeline.training.state import TrainingState

KEEP = 2
STATE, MODEL, OPTIMIZER = "state.json", "model.safetensors", "optimizer.safetensors"


def save(run_folder: Path, state: TrainingState) -> Path:
    """Write the state as `checkpoints/step-…`, on the disk whole or not at all, and drop older ones.

    Raises OutputError where it cannot be written, as on a full disk; earlier checkpoints stay.
    """
    folder = _folder(run_folder, state.step)
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        try:
            save_file(_on_cpu(dict(state.model.state_dict())), temporary / MODEL)
            save_file(_on_cpu(state.named_moments()), temporary / OPTIMIZER)
        except SafetensorError as error:  # it wraps the system's own error
            raise OutputError(f"cannot write {folder}: {error}") from error
        body = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": state.seconds,
            "fingerprint": state.fingerprint,
            "validation": state.validation,
            "sha256": {name: files.sha256_of(temporary / name) for name in (MODEL, OPTIMIZER)},
        }
        files.write_json(temporary / STATE, body)
        for name in (MODEL, OPTIMIZER, STATE):
            files.flush(temporary / name)
        if folder.exists():  # damaged, or this step would not have been taken again
            shutil.rmtree(folder)
    files.flush(folder.parent)
    for old in checkpoints(run_folder)[:-KEEP]:
        shutil.rmtree(old)
    return folder


def checkpoints(run_folder: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted((run_folder / "checkpoints").glob("step-*"))


def sweep(run_folder: Path) -> None:
    """Remove what a killed run left half written; for the holder of the run folder's lock."""
    for left in (run_folder / "checkpoints").glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def restore_latest(run_folder: Path, state: TrainingState, say: Callable[[str], None] = lambda line: None) -> int:
    """Load the newest checkpoint that is whole into `state`; returns its step, 0 where there is none.

    A damaged one is passed over in favour of the one before, and said. Raises CheckpointError for one of another run,
    and where all are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(checkpoints(run_folder)):
        try:
            _load(folder, state)
        except _DamagedError as error:
            damaged.append(str(error))
            continue
        for fault in damaged:
            say(f"{fault}; going on from step {state.step}")
        return state.step
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; no other is left: delete {run_folder} to start over")
    return 0


def restore(run_folder: Path, step: int, state: TrainingState) -> None:
    """Load the checkpoint of this very step; raises CheckpointError where it is not there whole."""
    try:
        _load(_folder(run_folder, step), state)
    except _DamagedError as error:
        raise CheckpointError(str(error)) from None


class _DamagedError(Exception):
    """A checkpoint that cannot be read, or whose bytes are not those that were written."""


def _folder(run_folder: Path, step: int) -> Path:
    return run_folder / "checkpoints" / f"step-{step:09d}"


def _load(folder: Path, state: TrainingState) -> None:
    try:
        body = files.read_json(folder / STATE)
        if body["fingerprint"] != state.fingerprint:
            raise CheckpointError(
                f"{folder} belongs to another run: fingerprint {body['fingerprint']}, not {state.fingerprint}"
            )
        for name, expected in body["sha256"].items():
            if files.sha256_of(folder / name) != expected:
                raise _DamagedError(f"{folder} is damaged ({name} has other bytes than were written)")
        weights, moments = load_file(folder / MODEL), load_file(folder / OPTIMIZER)
        state.model.load_state_dict(weights)
        state.step, state.tokens, state.seconds = body["step"], body["tokens"], body["seconds"]
        state.validation = body["validation"]
        state.restore_moments(moments)
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
        raise _DamagedError(f"{folder} is damaged ({str(error).splitlines()[0]})") from None


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
