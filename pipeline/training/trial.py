"""A trial: one model trained to one or more token counts in a process of its own, and what is kept of it.

The longer runs go on from the plateau of the shorter ones (docs/training_runs.md), so the steps they share are taken
once. What came out stands in outcome.json in each run's folder, which names settings, tokens and code: a run that has
one is never done again.
"""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from pipeline import files, provenance
from pipeline.training import checkpoint, lineage, origin
from pipeline.training.job import CPU, NonFiniteError, TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.loop import LOCK_WAIT_S, train
from pipeline.training.schedule import parting

FILE = "outcome.json"
LOCK = "trial.lock"  # held from the first look at a run to its outcome; the run's own lock is held within it


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
    """What a run left; None where it has not ended, or its file is another run's or not as it was written."""
    try:
        body = dict(files.read_json(job.run_folder / FILE))
        stated = body.pop("fingerprint"), body.pop("digest")
        return Outcome.model_validate(body) if stated == (job.fingerprint, _digest(job, body)) else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def write_outcome(job: TrainingJob, outcome: Outcome) -> None:
    body = outcome.model_dump(mode="json")
    marks = {"fingerprint": job.fingerprint, "digest": _digest(job, body)}
    files.write_json(job.run_folder / FILE, {**body, **marks})


def _digest(job: TrainingJob, body: dict[str, Any]) -> str:
    return provenance.fingerprint(job.fingerprint, body)


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
    outcome; longer runs would meet it at the same step. Raises OutputError where another process is at one of the runs
    for longer than a killed one would need to end.
    """
    outcomes: list[Outcome] = []
    for job in trial.jobs:
        found = _ended(job, to_the_end)
        if found is None:
            with _held(job):
                found = _ended(job, to_the_end)  # another process may have ended it while this one waited
                if found is None:
                    if outcomes and outcomes[-1].outcome == "diverged":
                        found = _diverged(job, trial.jobs[len(outcomes) - 1], outcomes[-1])
                    outcomes.append(found or _run(job, report, device, say))
                    write_outcome(job, outcomes[-1])
                    continue
        is_whole = found.outcome == "finished"  # its end is told by whoever has it run
        for tokens, loss_nats in found.validation[:-1] if is_whole else found.validation:
            report({"tokens": float(tokens), "loss_nats": loss_nats})
        outcomes.append(found)
    for job in trial.jobs:
        drop_weights(job)
    return outcomes


def stop(job: TrainingJob) -> Outcome:
    """What is to be said of a run that was stopped on its way: its validations, and what it took so far."""
    tokens, seconds = _taken(job)
    outcome = Outcome(
        outcome="stopped",
        loss_nats=None,
        validation=_validation(job),
        tokens=tokens,
        own_tokens=tokens - _shared(job, tokens),
        seconds=seconds,
        commit=provenance.git_commit(),
    )
    write_outcome(job, outcome)
    drop_weights(job)
    return outcome


def _ended(job: TrainingJob, to_the_end: bool) -> Outcome | None:
    """Its outcome, where that is the last word on it."""
    found = read_outcome(job)
    return None if to_the_end and found and found.outcome == "stopped" else found


def _held(job: TrainingJob) -> AbstractContextManager[None]:
    """One process at a time does a job."""
    job.run_folder.mkdir(parents=True, exist_ok=True)
    in_use = f"{job.run_folder} is in use: another process runs this trial; wait for it, or choose another paths.runs="
    return files.locked(job.run_folder / LOCK, LOCK_WAIT_S, in_use)


def _run(
    job: TrainingJob, report: Callable[[dict[str, float]], None], device: torch.device, say: Callable[[str], None]
) -> Outcome:
    """Train one job to its end, from its newest checkpoint or from a shorter run's plateau."""
    with run_lock(job.run_folder, LOCK_WAIT_S):  # a killed process may still be writing its last checkpoint
        if not origin.last_step(job.run_folder):
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
    tokens, seconds = _taken(job) if fault else (state.tokens, state.seconds)
    return Outcome(
        outcome="diverged" if fault else "finished",
        fault=fault,
        loss_nats=None if fault else points[-1][1],
        validation=points,
        tokens=tokens,
        own_tokens=tokens - _shared(job, tokens),
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


def _taken(job: TrainingJob) -> tuple[int, float]:
    """(tokens, seconds) up to the last step that its newest checkpoint or its log knows of; the checkpoint states its
    seconds, those of steps behind it are by the log's rates."""
    per_step = tokens_per_step(job)
    step, seconds, rate = *_at_checkpoint(job), 0.0
    records = RunLog(job.run_folder).read()
    for one in (one for one in records if one["kind"] == "train"):
        rate = one["tokens_per_s"]
        seconds += max(0, one["step"] - step) * per_step / rate
        step = max(step, one["step"])
    last = max([step, *(one["step"] for one in records if one["kind"] == "validation")])
    return last * per_step, seconds + ((last - step) * per_step / rate if rate else 0.0)


def _at_checkpoint(job: TrainingJob) -> tuple[int, float]:
    """(step, seconds) of the newest checkpoint; zeros where there is none, or it is damaged."""
    try:
        state = files.read_json(checkpoint.checkpoints(job.run_folder)[-1] / checkpoint.STATE)
        return int(state["step"]), float(state["seconds"])
    except (OSError, IndexError, *checkpoint.UNREADABLE):
        return 0, 0.0


def _shared(job: TrainingJob, tokens: int) -> int:
    """Of its first `tokens` those that another run had taken."""
    adopted = lineage.read(job.run_folder)["adopted"]
    return min(tokens, adopted["step"] * tokens_per_step(job)) if adopted else 0


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
