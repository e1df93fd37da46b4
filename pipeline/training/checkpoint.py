"""Checkpoints of an unfinished run: safetensors and JSON, one folder a step, the last two kept."""

import json
import shutil
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
    """Write the state as `checkpoints/step-…`, whole or not at all, and drop older ones.

    Raises OutputError where it cannot be written, as on a full disk; earlier checkpoints stay.
    """
    folder = run_folder / "checkpoints" / f"step-{state.step:09d}"
    body = {
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "fingerprint": state.fingerprint,
        "validation": state.validation,
    }
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        try:
            save_file(_on_cpu(dict(state.model.state_dict())), temporary / MODEL)
            save_file(_on_cpu(state.named_moments()), temporary / OPTIMIZER)
        except SafetensorError as error:  # it wraps the system's own error
            raise OutputError(f"cannot write {folder}: {error}") from error
        files.write_json(temporary / STATE, body)
    for old in checkpoints(run_folder)[:-KEEP]:
        shutil.rmtree(old)
    return folder


def checkpoints(run_folder: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted((run_folder / "checkpoints").glob("step-*"))


def restore_latest(run_folder: Path, state: TrainingState) -> bool:
    """Load the newest checkpoint into `state`; False where there is none.

    Raises CheckpointError for one of another run or a damaged one, and says what to do.
    """
    found = checkpoints(run_folder)
    if not found:
        return False
    folder = found[-1]
    mend = f"delete {folder} to go on from the one before, or {run_folder} to start over"
    try:
        body = files.read_json(folder / STATE)
        if body["fingerprint"] != state.fingerprint:
            raise CheckpointError(
                f"{folder} belongs to another run: fingerprint {body['fingerprint']}, not {state.fingerprint}; {mend}"
            )
        weights, moments = load_file(folder / MODEL), load_file(folder / OPTIMIZER)
        state.model.load_state_dict(weights)
        state.step, state.tokens, state.seconds = body["step"], body["tokens"], body["seconds"]
        state.validation = body["validation"]
        state.restore_moments(moments)
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is damaged ({str(error).splitlines()[0]}); {mend}") from None
    return True


def _on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
