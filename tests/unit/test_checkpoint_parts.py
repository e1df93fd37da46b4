"""Checkpoints of an unfinished run, without a loop: which folders count, which stay, what is believed."""

from collections.abc import Collection
from pathlib import Path

import pytest
import torch

from pipeline import files
from pipeline.errors import CheckpointError
from pipeline.training import checkpoint, origin
from pipeline.training.state import TrainingState
from tests.unit.test_training_run import stepped_state


@pytest.fixture
def state() -> TrainingState:
    return stepped_state()


def write(folder: Path, state: TrainingState, step: int, keep: int = 2, milestones: Collection[int] = ()) -> Path:
    state.step = step
    taken = checkpoint.snapshot(state)
    checkpoint.write_part(folder, taken)
    written = checkpoint.commit(folder, taken, keep, milestones)
    assert written is not None
    return written


def steps_of(folder: Path) -> list[int]:
    return [checkpoint.step_of(one) for one in checkpoint.checkpoints(folder)]


def test_fault_folders_of_other_names_are_no_checkpoints(tmp_path, state):
    strays = [tmp_path / "checkpoints" / name for name in ("step-000000007.bak", "step-9", "step-", "step-0000000005")]
    for stray in strays:
        stray.mkdir(parents=True)
    assert steps_of(tmp_path) == [] and origin.last_step(tmp_path) == 0
    for step in (1, 2, 3):
        write(tmp_path, state, step)
    assert steps_of(tmp_path) == [2, 3] and origin.last_step(tmp_path) == 3
    assert checkpoint.restore_latest(tmp_path, state) == 3
    assert all(stray.is_dir() for stray in strays)


def test_fault_a_folder_that_was_renamed_is_not_the_step_it_says(tmp_path, state):
    write(tmp_path, state, 3)
    renamed = write(tmp_path, state, 4).rename(tmp_path / "checkpoints/step-000000008")
    said: list[str] = []
    assert checkpoint.restore_latest(tmp_path, state, said.append) == state.step == 3
    assert said == [f"{renamed} is damaged (state.json is of step 4); going on from step 3"]
    with pytest.raises(CheckpointError, match=r"is damaged \(state.json is of step 4\)"):
        checkpoint.restore(tmp_path, 8, state)


def test_a_milestone_stays_whatever_the_interval_is_later(tmp_path, state):
    for step in (2, 3, 4, 5):
        write(tmp_path, state, step, keep=1, milestones={2, 4})
    for step in (6, 7):
        write(tmp_path, state, step, keep=1, milestones={7})
    assert steps_of(tmp_path) == [2, 4, 7]
    assert files.read_json(tmp_path / "checkpoints/step-000000004/state.json")["milestone"] is True
    (tmp_path / "checkpoints/step-000000002/model-0-0.safetensors").unlink()
    write(tmp_path, state, 2, keep=1)  # taken again
    write(tmp_path, state, 9, keep=1)
    assert steps_of(tmp_path) == [2, 4, 7, 9]


@pytest.mark.parametrize("body", ["{", "[]"])
def test_fault_an_old_checkpoint_that_cannot_be_read_makes_room(tmp_path, state, body):
    (write(tmp_path, state, 1) / "state.json").write_text(body)
    (write(tmp_path, state, 2) / "state.json").unlink()
    assert [write(tmp_path, state, 3, keep=1)] == checkpoint.checkpoints(tmp_path)


def test_fault_a_damaged_newer_one_does_not_displace_what_was_just_written(tmp_path, state):
    write(tmp_path, state, 4)
    (write(tmp_path, state, 8) / "state.json").write_text("{")
    assert checkpoint.restore_latest(tmp_path, state) == 4
    write(tmp_path, state, 6, keep=1)
    assert steps_of(tmp_path) == [6, 8]
    assert checkpoint.restore_latest(tmp_path, state) == 6


@pytest.mark.parametrize("lacking", ["model-0-0.safetensors", "optimizer-0-0.safetensors", "all", "list", "null"])
def test_fault_a_file_without_a_hash_is_not_believed(tmp_path, state, lacking):
    folder = write(tmp_path, state, 1)
    body = files.read_json(folder / "state.json")
    others = {"all": {}, "list": [], "null": None}
    left = {name: digest for name, digest in body["sha256"].items() if name != lacking}
    files.write_json(folder / "state.json", {**body, "sha256": others.get(lacking, left)})
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.restore_latest(tmp_path, state)


def test_fault_a_state_that_is_no_text_is_damaged(tmp_path, state):
    write(tmp_path, state, 1)
    (write(tmp_path, state, 2) / "state.json").write_bytes(b"\xff\xfe")
    assert checkpoint.restore_latest(tmp_path, state) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_fault_a_device_that_fails_says_nothing_about_the_checkpoint(tmp_path, state, monkeypatch, error):
    write(tmp_path, state, 1)

    def fails(*arguments):
        raise error("CUDA out of memory")

    monkeypatch.setattr(checkpoint._Parts, "read", fails)
    with pytest.raises(error, match="out of memory"):
        checkpoint.restore_latest(tmp_path, state)
