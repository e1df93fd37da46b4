"""How a stage script has a study's trials done: on Ray, told to its user, noted by its tracker."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from pipeline.compose import model_config as lookup
from pipeline.data.manifest import read as read_manifest
from pipeline.errors import DataError, RunError
from pipeline.study.progress import Progress
from pipeline.study.trials import Maker
from pipeline.training import ray_trials
from pipeline.training.trial import Outcome, Trial, describe, tokens_per_step

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun

__all__ = ["lookup", "maker_of", "runner"]
LOOP = "pipeline.training.loop"  # the code that takes a trial's steps


def maker_of(work: "Work") -> Maker:
    """The maker of a stage's trials, which are named by the code that takes their steps, not by what compares them."""

    @cache
    def code_of(architecture: str) -> dict[str, str]:
        return work.code_of(LOOP, {architecture})

    folder = work.path("data").resolve()
    entries, rows = read_manifest(folder)["tokenizer"]["vocab_size"], _rows(work.config)
    if entries > rows:
        raise DataError(f"{folder} was tokenised with {entries} entries; the sizes' models (sweep.sizes) have {rows}")
    return Maker(work.config, folder, code_of, work.device_flops())


def _rows(config: "Config") -> int:
    return min(lookup(size.model).vocab_size for size in config.sweep.sizes.values())


def runner(
    config: "Config", maker: Maker, progress: Progress, log: "StageRun"
) -> Callable[[list[Trial], bool], Mapping[str, list[Outcome]]]:
    """Runs trials, halved or not, and gives their outcomes by name."""
    sweep = config.sweep

    def told(trial: Trial, outcomes: list[Outcome]) -> None:
        progress.ended(trial, outcomes)
        try:
            _note(log, trial, outcomes)
        except Exception as error:  # hours of trials must not end with a tracker's hiccup; it is noted at the end
            progress.say(f"tracking failed, the study goes on: {_line(error)}")

    def run(trials: list[Trial], halved: bool) -> Mapping[str, list[Outcome]]:
        halving = None
        if halved and len(trials) > 1 and sweep.rungs > 1:
            halving = ray_trials.Halving(
                maker.first_rung(trials[0].jobs[0].model), sweep.search_tokens, sweep.reduction_factor
            )
        found = ray_trials.run_trials(trials, config.cluster, told, halving)
        try:
            for trial in trials:
                _note(log, trial, found[trial.name])
        except Exception as error:  # a store raises whatever it raises
            raise RunError(
                f"tracking.uri={config.tracking.uri}: {_line(error)}; the trials are done and kept: the "
                "same command goes on, with tracking=none untracked"
            ) from error
        return found

    return run


def _line(error: Exception) -> str:
    """The first line of what it says, or else its kind."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _note(log: "StageRun", trial: Trial, outcomes: list[Outcome]) -> None:
    """A child run of the stage's for every run of a trial."""
    for job, outcome in zip(trial.jobs, outcomes, strict=True):
        per_step = tokens_per_step(job)
        points = [(tokens // per_step, {"val_loss_nats": loss_nats}) for tokens, loss_nats in outcome.validation]
        numbers = {"tokens": float(outcome.tokens), "seconds": outcome.seconds}
        if outcome.loss_nats is not None:
            numbers["final_val_loss_nats"] = outcome.loss_nats
        name = f"{trial.name} {job.training.steps} steps"
        key = f"{job.model.name} {job.fingerprint}"  # two arms may be one model at a size
        log.log_trial(name, key, describe(job), points, numbers, outcome.outcome)
