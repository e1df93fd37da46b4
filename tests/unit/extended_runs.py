"""Runs that can go on from others, in folders of their names, through the real loop without Ray."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.config.group import Group
from pipeline.training import run as runs
from pipeline.training.branch import Branch
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.log import RunLog
from pipeline.training.loop import train
from pipeline.training.state import TrainingState
from tests.unit.test_training import TINY

EVERY_4 = "cluster.checkpoint_interval=4"
WSD = ("training.schedule=wsd", "training.decay_steps=4", EVERY_4)
LONG = (*WSD, "training.steps=20")


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(runs.ray_launcher, "fit", lambda the_job, poll, say: train(the_job, Worker(), lambda _: None))


@functools.cache
def tiny() -> Config:
    """Composed once: that takes longer than a run."""
    return compose(TINY)


def changed(group: Group, name: str, changes: tuple[str, ...]) -> Group:
    """The settings of `group` with those of `changes` that are its own, checked as ever."""
    pairs = [change.removeprefix(f"{name}.").split("=") for change in changes if change.startswith(f"{name}.")]
    found = {key: float(value) if "e-" in value else value if value.isalpha() else int(value) for key, value in pairs}
    return type(group).model_validate({**dict(group), **found})


def job(tokens: Path, root: Path, *changes: str, branch_from: Path | None = None) -> TrainingJob:
    groups = {name: changed(getattr(tiny(), name), name, changes) for name in ("model", "training", "cluster")}
    training = groups["training"].model_copy(update={"branch_from": branch_from and str(branch_from)})
    root.mkdir(parents=True, exist_ok=True)
    return TrainingJob(groups["model"], training, groups["cluster"], tokens, root, "a-fingerprint")


def named(tokens: Path, root: Path, *changes: str, branch_from: Path | None = None, code: str = "code") -> TrainingJob:
    """The job of these settings in the folder that is theirs."""
    the_job = job(tokens, root, *changes, branch_from=branch_from)
    settings = {"model": the_job.model.identity(), "training": the_job.training.identity()}
    name = runs.identity(settings, tokens, {"code": code}, Branch.of(the_job.training))
    folder = root / f"{the_job.model.name}-{name}"
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(the_job, run_folder=folder, fingerprint=name)


def go(the_job: TrainingJob) -> tuple[TrainingState, list[str]]:
    """The finished state, and what was said but for the log."""
    said: list[str] = []
    state = runs.run(the_job, said.append, lambda records: None)
    return state, [line for line in said if not line.startswith("step ")]


def assert_same(one: TrainingState, other: TrainingState) -> None:
    assert (one.step, one.tokens) == (other.step, other.tokens)
    for (name, ours), theirs in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, moment in one.named_moments().items():
        assert torch.equal(moment, other.named_moments()[name]), name


def records_of(run_folder: Path) -> list[tuple[str, int]]:
    return [(record["kind"], record["step"]) for record in RunLog(run_folder).read()]
