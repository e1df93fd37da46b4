"""Tiny studies with real trials: what the tests of arms, search and trials share."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.config.model import ModelConfig
from pipeline.config.study import StudyConfig
from pipeline.config.sweep import Size, SweepConfig
from pipeline.study.trials import Maker
from pipeline.training.trial import Outcome, Trial
from tests.unit.test_training import TINY

PER_STEP = 4 * 32  # tokens: windows of a step, block_size


@cache
def config() -> Config:
    return compose([*TINY, "+experiment=ablation_init"])


def sweep(**changes: object) -> SweepConfig:
    """Steps of the tiny model: runs of 4 and 8 steps, a search of 4 with a rung at 2."""
    settings = {
        "name": "tiny",
        "sizes": {"xs": Size(model="demo_standard", n_layer=2, n_embd=32)},
        "tokens": [4 * PER_STEP, 8 * PER_STEP],
        "central_size": "xs",
        "central_tokens": 4 * PER_STEP,
        "warmup_steps": 1,
        "n_seeds": 2,
        "learning_rates": [1e-3, 2e-3, 4e-3],
        "init_stds": [0.02],
        "search_tokens": 4 * PER_STEP,
        "rungs": 2,
    }
    return SweepConfig.model_validate({**settings, **changes})


def study(**arms: object) -> StudyConfig:
    return StudyConfig.model_validate({"name": "tiny", "question": "?", "baseline": next(iter(arms)), "arms": arms})


def model(name: str = "xs.standard", **changes: object) -> ModelConfig:
    settings = {"architecture": "standard", "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32}
    return ModelConfig.model_validate({"name": name, **settings, "vocab_size": 512, **changes})


def maker(
    data: Path,
    runs: Path,
    /,
    code: str = "code",
    training: dict[str, object] | None = None,
    cluster: dict[str, object] | None = None,
    **changes: object,
) -> Maker:
    """A maker of trials on the tokens in `data`, under `runs`; `changes` are the sweep's."""
    base = config()
    changed = {
        "sweep": sweep(**changes),
        "paths": base.paths.model_copy(update={"runs": str(runs)}),
        "cluster": base.cluster.model_copy(update=cluster or {}),
        "training": base.training.model_copy(update={"sample_tokens": 0, **(training or {})}),
    }
    return Maker(base.model_copy(update=changed), data, lambda architecture: {f"{architecture}.py": code}, {})


def outcome(loss_nats: float | None, kind: str = "finished", tokens: int = 4 * PER_STEP) -> Outcome:
    return Outcome(
        outcome=kind,  # type: ignore[arg-type]
        fault="step 1: loss nan" if kind == "diverged" else "",
        loss_nats=loss_nats,
        validation=[(tokens, loss_nats)] if loss_nats is not None else [],
        tokens=tokens,
        own_tokens=tokens,
        seconds=1.0,
        commit="",
    )


Point = tuple[str, float, float]  # arm, rate, initial scale


class FakeRun:
    """Stands for Ray: outcomes by `told` of (arm, rate, scale), and the calls it saw."""

    def __init__(self, told: Callable[[str, float, float, bool], Outcome]) -> None:
        self.told = told
        self.calls: list[tuple[bool, list[Point]]] = []

    def __call__(self, trials: list[Trial], halved: bool) -> dict[str, list[Outcome]]:
        points = [self.point(trial) for trial in trials]
        self.calls.append((halved, points))
        return {trial.name: [self.told(*point, halved)] for trial, point in zip(trials, points, strict=True)}

    @staticmethod
    def point(trial: Trial) -> Point:
        (job,) = trial.jobs
        return job.model.name.partition(".")[2], job.training.learning_rate, job.model.init_std
