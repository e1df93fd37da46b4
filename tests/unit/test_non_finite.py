"""A loss or gradient that is no number: stop or leave the step out, and name the windows that caused it."""

import json
import math

import pytest
import torch

from pipeline.data import TokenData, TokenSampler
from pipeline.training import checkpoint, step
from pipeline.training import run as runs
from pipeline.training.job import NonFiniteError, Worker
from pipeline.training.log import RunLog, text_line
from pipeline.training.loop import train
from pipeline.training.loss import LossModule
from pipeline.training.validation import Validation
from tests.token_folder import write_token_folder
from tests.unit.test_training import job, losses


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def poisoned(tokens, monkeypatch):
    """Windows of chosen starts have a loss that is no number; returns the function that chooses by (step, row)."""
    sampler = TokenSampler(TokenData.open(tokens).train, 32, 4, 1337)
    bad: list[torch.Tensor] = []

    class Poisoned(LossModule):
        def forward(self, windows, share=1.0):
            loss = super().forward(windows, share)
            odd = any(torch.equal(window, one) for window in windows for one in bad)
            return loss * math.nan if odd else loss

    monkeypatch.setattr(step, "LossModule", Poisoned)

    def poison(*places: tuple[int, int]) -> list[int]:
        bad.extend(torch.from_numpy(sampler.part(at, slice(row, row + 1))[0]) for at, row in places)
        return [int(sampler.starts(at)[row]) for at, row in places]

    return poison


def test_fault_a_stopped_run_names_the_window(tokens, tmp_path, poisoned):
    (start,) = poisoned((4, 2))
    with pytest.raises(NonFiniteError, match=rf"step 5: loss nan.*from tokens \[{start}\].*not changed"):
        train(job(tokens, tmp_path), Worker(), lambda metrics: None)
    assert len(losses(tmp_path)) == 4


def test_fault_no_window_alone_is_to_blame(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(step.Gradients, "norm", lambda self: torch.tensor(math.inf))
    with pytest.raises(NonFiniteError, match=r"step 1: loss 6.*gradient norm inf.*no window alone"):
        train(job(tokens, tmp_path), Worker(), lambda metrics: None)


def test_fault_steps_are_left_out_and_resume_is_exact(tokens, tmp_path, poisoned):
    starts = poisoned((3, 0), (3, 3), (8, 1))
    changes = ["training.non_finite=skip", "cluster.micro_batch_size=2"]
    straight = train(job(tokens, tmp_path / "straight", *changes), Worker(), lambda metrics: None)
    assert (straight.step, straight.skipped) == (12, 2)
    left_out = [record for record in RunLog(tmp_path / "straight").read() if record["kind"] == "skipped"]
    assert [(record["step"], record["windows"]) for record in left_out] == [(4, starts[:2]), (9, starts[2:])]
    assert (
        all(math.isfinite(loss) for loss in losses(tmp_path / "straight")) and len(losses(tmp_path / "straight")) == 10
    )
    assert "nan" not in json.dumps([record for record in left_out if record["kind"] == "train"])
    assert "left out" in text_line(left_out[0], 12)

    def kill(metrics):
        if metrics["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(tokens, tmp_path / "resumed", *changes), Worker(), kill)
    resumed = train(job(tokens, tmp_path / "resumed", *changes), Worker(), lambda metrics: None)
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight") and resumed.skipped == 2
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_fault_not_every_step_can_be_left_out(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(step.Gradients, "norm", lambda self: torch.tensor(math.nan))
    changes = ["training.non_finite=skip", "training.steps=40"]
    with pytest.raises(NonFiniteError, match=r"step 11: .* 11 steps in a row"):
        train(job(tokens, tmp_path, *changes), Worker(), lambda metrics: None)


def test_fault_a_validation_that_is_no_number_ends_the_run(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(Validation, "loss_nats", lambda self: math.nan)
    with pytest.raises(NonFiniteError, match=r"step 6: validation loss nan behind a learning rate of 0\.00"):
        train(job(tokens, tmp_path, "training.learning_rate=2e-3"), Worker(), lambda metrics: None)
    assert not [record for record in RunLog(tmp_path).read() if record["kind"] in ("validation", "sample")]
    assert not checkpoint.checkpoints(tmp_path)


def test_the_log_has_a_line_for_what_is_skipped_at_its_interval(tokens, tmp_path, poisoned):
    """Steps 4, 8 and 12 are left out; the next good one is logged, and at the end the last good one."""
    poisoned((3, 0), (7, 0), (11, 0))
    one = job(tokens, tmp_path, "training.non_finite=skip", "cluster.log_interval=4")
    state = train(one, Worker(), lambda metrics: None)
    logged = [record["step"] for record in RunLog(tmp_path).read() if record["kind"] == "train"]
    assert logged == [5, 9, 11]
    found = runs.result(one, state, TokenData.open(tokens), "demo")
    assert (found.steps, found.skipped_steps, [point.step for point in found.curve]) == (12, 3, logged)
