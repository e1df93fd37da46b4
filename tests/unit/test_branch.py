"""Runs that branch from a checkpoint with settings of their own."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from pipeline import files
from pipeline.data import TokenData, TokenSampler
from pipeline.errors import CheckpointError
from pipeline.models import build_model
from pipeline.training import checkpoint
from pipeline.training import run as runs
from pipeline.training.branch import Branch
from pipeline.training.log import RunLog
from pipeline.training.optimizer import make_optimizer
from pipeline.training.schedule import learning_rate
from stages import train as train_stage
from stages.entry import launch
from tests.token_folder import data_overrides, write_token_folder
from tests.unit.extended_runs import (
    EVERY_4,
    LONG,
    WSD,
    assert_same,
    go,
    job,
    named,
    records_of,
    without_ray,  # noqa: F401, a fixture of every test here
)
from tests.unit.test_training import TINY, flip_a_bit


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def test_a_branch_goes_on_with_settings_of_its_own(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    at_8 = first.run_folder / "checkpoints/step-000000008"
    own = ("training.learning_rate=5e-4", "training.seed=3", "training.steps=14", "training.schedule=wsd")
    branched = named(tokens, tmp_path, EVERY_4, *own, branch_from=at_8)
    state, said = go(branched)
    assert said == [f"branches from {at_8} at step 8", "resuming from step 8"]

    model = build_model(branched.model, seed=None)
    model.load_state_dict(load_file(next(at_8.glob("model*.safetensors"))))
    moments = load_file(next(at_8.glob("optimizer*.safetensors")))
    optimizer = make_optimizer(model, branched.training)
    for name, parameter in model.named_parameters():
        kept = {key: moments[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(8.0), **kept}
    data = TokenData.open(tokens)
    sampler = TokenSampler(data.train, branched.model.block_size, 4, seed=3)
    for step in range(8, 14):
        windows = torch.from_numpy(sampler.part(step, slice(0, 4))).long()  # (4, T + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, branched.training)
        logits = model(windows[:, :-1])  # (4, T, V)
        functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for (name, ours), theirs in zip(state.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")

    assert state.tokens == 14 * 4 * 32
    assert [step for kind, step in records_of(branched.run_folder) if kind == "train"] == list(range(9, 15))
    assert [point["step"] for point in state.validation] == [12, 14]
    found = runs.result(branched, state, data, "demo")
    assert found.adopted is None and found.branched is not None
    assert (found.branched.fingerprint, found.branched.step) == (first.fingerprint, 8)
    records = [record for record in RunLog(branched.run_folder).read() if record["kind"] == "train"]
    assert found.stepping_s == pytest.approx(sum(4 * 32 / record["tokens_per_s"] for record in records))
    assert found.stepping_s < found.wall_s < 60


def test_a_branch_is_known_by_its_content_and_can_be_extended(tokens, tmp_path):
    first = named(tokens, tmp_path / "a", *WSD)
    go(first)
    moved = tmp_path / "moved"
    shutil.copytree(first.run_folder, moved)
    (moved / "checkpoints/step-000000008").rename(moved / "checkpoints/backup")
    own = (*WSD, "training.seed=3", "training.steps=20")
    here, there, other = (
        named(tokens, tmp_path / "b", *own, branch_from=folder)
        for folder in (first.run_folder / "checkpoints/step-000000012", moved, moved / "checkpoints/backup")
    )
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert go(other)[1][0] == f"branches from {moved}/checkpoints/backup at step 8"
    go(here)
    longer = (*own, "training.steps=24")
    state, said = go(named(tokens, tmp_path / "b", *longer, branch_from=moved))
    assert said[0] == f"extends {here.run_folder} from step 16"
    straight, said = go(named(tokens, tmp_path / "c", *longer, branch_from=moved))
    assert said[0].startswith("branches from")
    assert_same(state, straight)


def test_a_branch_is_known_by_its_position_too(tokens, tmp_path):
    first = named(tokens, tmp_path, *WSD)
    go(first)
    path = checkpoint.checkpoints(first.run_folder)[-1] / "state.json"
    body, found = files.read_json(path), set()
    for change in ({}, {"skipped": 3}, {"tokens": 7}, {"step": 11}):
        files.write_json(path, {**body, **change})
        found.add(named(tokens, tmp_path, *LONG, "training.seed=3", branch_from=first.run_folder).fingerprint)
    assert len(found) == 4


def branch(tokens: Path, root: Path, origin_folder: Path, *changes: str) -> None:
    the_job = job(tokens, root, *changes, branch_from=origin_folder)
    found = Branch.of(the_job.training)
    assert found is not None
    found.check(the_job.model, the_job.training)


def test_what_cannot_be_branched_from_is_said_before_work(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    newest = first.run_folder / "checkpoints/step-000000012"
    branch(tokens, tmp_path, newest, "training.steps=13")
    for changes, text in [
        ([], r"at step 12: training.steps=12 must be more"),
        (["training.steps=20", "model.n_layer=1"], "another model: model.n_layer is 2 there and 1 here"),
        (["training.steps=20", "model.n_head=8"], "model.n_head is 4 there and 8 here"),
    ]:
        with pytest.raises(CheckpointError, match=text) as caught:
            branch(tokens, tmp_path, first.run_folder, *changes)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    for folder in (tmp_path / "nowhere", tmp_path, tokens, newest / "state.json"):
        with pytest.raises(CheckpointError, match=rf"branch_from={folder}: no checkpoint there; must be"):
            branch(tokens, tmp_path, folder, "training.steps=20")
    next(newest.glob("optimizer*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"damaged, optimizer\S*.safetensors is missing"):
        branch(tokens, tmp_path, newest, "training.steps=20")
    (newest / "state.json").write_text(json.dumps(["step"]))
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        branch(tokens, tmp_path, newest, "training.steps=20")


def test_a_checkpoint_alone_is_enough_to_branch_from(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    shutil.copytree(first.run_folder / "checkpoints/step-000000008", tmp_path / "backup")
    branch(tokens, tmp_path, tmp_path / "backup")
    with pytest.raises(CheckpointError, match=r"model\.n_layer is 2 there and 1 here"):
        branch(tokens, tmp_path, tmp_path / "backup", "model.n_layer=1")


def test_fault_a_branch_whose_bytes_are_not_those_written(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    flip_a_bit(next(first.run_folder.glob("checkpoints/step-000000012/model*")))
    the_job = named(tokens, tmp_path, "training.steps=20", branch_from=first.run_folder)
    with pytest.raises(CheckpointError, match=r"branch_from=\S*: \S* is damaged \(model"):
        runs.run(the_job, lambda line: None, lambda records: None)
    assert not checkpoint.checkpoints(the_job.run_folder)


def test_a_dry_run_says_what_is_wrong_with_a_branch(tokens, tmp_path, monkeypatch, capsys):
    words = [*TINY, *data_overrides(tokens), f"paths.data={tokens.parent}", f"paths.runs={tmp_path}", "debug=dry_run"]
    monkeypatch.setattr(sys, "argv", ["train", *words, f"training.branch_from={tmp_path}/gone"])
    code = launch(train_stage.run, "")
    said = capsys.readouterr()
    assert code == 2 and "Traceback" not in said.err
    assert f"training.branch_from={tmp_path}/gone: no checkpoint there" in said.out
