"""A trial: one model trained to one or more token counts in a process of its own, and what is kept of it.

The longer runs go on from the plateau of the shorter ones (docs/training_runs.md), so the steps they share are taken
once. What came out stands in outcome.json in each run's folder, which names settings, tokens and code: a run that has
one is never done again.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import files, provenance
from pipeline.training import lineage, origin
from pipeline.training.job import CPU, NonFiniteError, TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.loop import LOCK_WAIT_S, train
from pipeline.training.schedule import parting

FILE = "outcome.json"


class Outcome(BaseModel):
    """outcome.json: where a run of a trial ended."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    outcome: Literal["finished", "stopped", "diverged"]
    fault: str = ""  # of a diverged run
    loss_nats: float | None  # validation loss at the end; None where it was not reached
    validation: list[tuple[int, float]]  # (tokens, loss in nats)
    tokens: int  # training tokens behind its last weights
    own_tokens: int  # of these, those that no shorter run of the trial had taken
    seconds: float  # wall time of its steps and validations, shared ones included
    commit: str


@dataclass(frozen=True)
class Trial:
    """One model from one seed; `jobs` differ in their steps alone, ascending."""

    name: str
    jobs: tuple[TrainingJob, ...]
    cost: float  # training FLOPs, to say how much is left

    def outcomes(self) -> list[Outcome] | None:
        """Of all its jobs; None where one is still to be done."""
        found = [read_outcome(job) for job in self.jobs]
        return [one for one in found if one is not None] if all(found) else None


def tokens_per_step(job: TrainingJob) -> int:
    return job.training.global_batch_size * job.model.block_size


def read_outcome(job: TrainingJob) -> Outcome | None:
    """What a run left; None where it has not ended, or its file is no such file."""
    try:
        return Outcome.model_validate(files.read_json(job.run_folder / FILE))
    except (OSError, ValueError, ValidationError):
        return None


def write_outcome(job: TrainingJob, outcome: Outcome) -> None:
    files.write_json(job.run_folder / FILE, outcome.model_dump(mode="json"))


def run_trial(
    trial: Trial,
    report: Callable[[dict[str, float]], None],
    device: torch.device = CPU,
    say: Callable[[str], None] = print,
    to_the_end: bool = False,
) -> list[Outcome]:
    """Do what is still to be done of a trial. `report` gets {"tokens", "loss_nats"} at every validation.

    What an earlier call has reported is reported again, so that whoever halves trials sees the same rungs; with
    `to_the_end` what a search has stopped is run nevertheless. A loss that is no number ends the trial, and is an
    outcome; longer runs would meet it at the same step.
    """
    outcomes: list[Outcome] = []
    for job in trial.jobs:
        found = read_outcome(job)
        if to_the_end and found and found.outcome == "stopped":
            found = None
        if found is None:
            if outcomes and outcomes[-1].outcome == "diverged":
                found = _diverged(job, trial.jobs[len(outcomes) - 1], outcomes[-1])
            found = found or _run(job, report, device, say)
            write_outcome(job, found)
        else:
            is_whole = found.outcome == "finished"  # its end is told by whoever has it run
            for tokens, loss_nats in found.validation[:-1] if is_whole else found.validation:
                report({"tokens": float(tokens), "loss_nats": loss_nats})
        outcomes.append(found)
    for job in trial.jobs:
        drop_weights(job)
    return outcomes


def stop(job: TrainingJob) -> Outcome:
    """What is to be said of a run that was stopped on its way: its validations so far."""
    points = _validation(job)
    outcome = Outcome(
        outcome="stopped",
        loss_nats=None,
        validation=points,
        tokens=points[-1][0] if points else 0,
        own_tokens=points[-1][0] if points else 0,
        seconds=_seconds(job),
        commit=provenance.git_commit(),
    )
    write_outcome(job, outcome)
    drop_weights(job)
    return outcome


def _run(
    job: TrainingJob, report: Callable[[dict[str, float]], None], device: torch.device, say: Callable[[str], None]
) -> Outcome:
    """Train one job to its end, from its newest checkpoint or from a shorter run's plateau."""
    job.run_folder.mkdir(parents=True, exist_ok=True)
    if not origin.last_step(job.run_folder):
        with run_lock(job.run_folder, LOCK_WAIT_S):
            lineage.begin(job, say)
    origin.note(job.run_folder, provenance.git_commit())
    reported: set[int] = set()

    def tell(_: dict[str, float]) -> None:
        for tokens, loss_nats in _validation(job):
            if tokens not in reported and tokens < job.training.steps * tokens_per_step(job):
                reported.add(tokens)
                report({"tokens": float(tokens), "loss_nats": loss_nats})

    tell({})
    fault = ""
    try:
        state = train(job, Worker(device=device), tell)
    except NonFiniteError as error:
        fault = str(error)
    points = _validation(job)
    adopted = lineage.read(job.run_folder)["adopted"]
    if fault:
        records = [one["step"] for one in RunLog(job.run_folder).read() if one["kind"] == "train"]
        tokens = max(records, default=0) * tokens_per_step(job)
        seconds, loss_nats = _seconds(job), None
    else:
        tokens, seconds, loss_nats = state.tokens, state.seconds, points[-1][1]
    shared = min(tokens, adopted["step"] * tokens_per_step(job)) if adopted else 0
    return Outcome(
        outcome="diverged" if fault else "finished",
        fault=fault,
        loss_nats=loss_nats,
        validation=points,
        tokens=tokens,
        own_tokens=tokens - shared,
        seconds=seconds,
        commit=provenance.git_commit(),
    )


def _validation(job: TrainingJob) -> list[tuple[int, float]]:
    """(tokens, loss in nats) of every validation of its log."""
    per_step = tokens_per_step(job)
    return [
        (int(one["step"]) * per_step, float(one["loss_nats"]))
        for one in RunLog(job.run_folder).read()
        if one["kind"] == "validation"
    ]


def _seconds(job: TrainingJob) -> float:
    """Wall time of its logged steps."""
    records = [one for one in RunLog(job.run_folder).read() if one["kind"] == "train"]
    starts = [0, *(one["step"] for one in records[:-1])]
    return float(
        sum(
            (one["step"] - start) * tokens_per_step(job) / one["tokens_per_s"]
            for one, start in zip(records, starts, strict=True)
        )
    )


def _diverged(job: TrainingJob, shorter: TrainingJob, found: Outcome) -> Outcome | None:
    """A longer run that would take the very steps at which a shorter one diverged; None where it may part before.

    The outcome holds the last step that was logged; it diverged before the next one would have been.
    """
    last = found.tokens // tokens_per_step(job) + job.cluster.log_interval
    is_same = last <= parting(job.training, shorter.training)
    return found.model_copy(update={"own_tokens": 0}) if is_same else None


def drop_weights(job: TrainingJob) -> None:
    """Of a study's many runs the losses count."""
    shutil.rmtree(job.run_folder / "checkpoints", ignore_errors=True)


def describe(job: TrainingJob) -> dict[str, Any]:
    """What a tracker notes of a run beside its numbers."""
    return {"model": job.model.model_dump(mode="json"), "training": job.training.model_dump(mode="json")}
