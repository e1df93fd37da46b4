"""Ray Tune around trials: as many at a time as there are cores or GPUs, halved where a search says so (ASHA)."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config.execution import ClusterConfig
from pipeline.errors import RunError
from pipeline.training import ray_launcher
from pipeline.training.trial import Outcome, Trial, drop_weights, run_trial, stop

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # outcome.json says it all
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends at once; the same command goes on
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that diverges at once has no loss
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with verbose=0 the old one is silent
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # Tune's own state is not what a rerun goes on from

Told = Callable[[Trial, list[Outcome]], None]


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving: of so many trials one passes each rung."""

    first_tokens: int  # of the first rung
    last_tokens: int  # of the end
    reduction_factor: float


def run_trials(
    trials: Sequence[Trial], cluster: ClusterConfig, told: Told, halving: Halving | None = None
) -> dict[str, list[Outcome]]:
    """Every trial's outcomes by its name; those that are done are read, and with `halving` shown to the search again.

    Without `halving` all run to the end, also those that another search has stopped.
    `told` is called whenever a trial has ended that was not done before. Raises RunError where a trial fails more often
    than cluster.max_failures, KeyboardInterrupt after Ctrl-C or SIGTERM: the same call goes on from the last
    checkpoints. Raises ValueError before anything is run where two trials have one name.
    """
    _check_names(trials)
    done = _done(trials, halving)
    for job in (job for trial in trials if trial.name in done for job in trial.jobs):
        drop_weights(job)  # of one that was killed between its outcome and this
    if len(done) < len(trials):
        left = [trial for trial in trials if trial.name not in done]
        _fit(trials if halving else left, cluster, {trial.name for trial in left}, told, halving)
        done = _done(trials, halving)
    if lacking := [trial.name for trial in trials if trial.name not in done]:
        raise RunError(f"trial {lacking[0]} ended without an outcome, and {len(lacking) - 1} more did")
    return done


def _check_names(trials: Sequence[Trial]) -> None:
    """Outcomes are told apart by names."""
    folders: dict[str, Path] = {}
    for trial in trials:
        folder = trial.jobs[-1].run_folder
        if trial.name in folders:
            raise ValueError(f"two trials are named {trial.name!r}: those in {folders[trial.name]} and in {folder}")
        folders[trial.name] = folder


def _done(trials: Sequence[Trial], halving: Halving | None) -> dict[str, list[Outcome]]:
    found = {trial.name: outcomes for trial in trials if (outcomes := trial.outcomes()) is not None}
    if halving:
        return found
    return {name: outcomes for name, outcomes in found.items() if outcomes[-1].outcome != "stopped"}


def resources(cluster: ClusterConfig) -> dict[str, float]:
    """What a trial takes: one GPU and its share of the cores, or one core."""
    if cluster.device != "cuda":
        return {"CPU": 1.0}
    from pipeline.provenance import usable_cores

    return {"CPU": float(max(1, usable_cores() // max(1, torch.cuda.device_count()))), "GPU": 1.0}


def _fit(trials: Sequence[Trial], cluster: ClusterConfig, fresh: set[str], told: Told, halving: Halving | None) -> None:
    ray_launcher.start(cluster)
    from ray import tune

    for noisy in ("ray.tune", "ray.air"):  # what failed is said below, in a line
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    from ray.tune.schedulers import ASHAScheduler

    by_name = {trial.name: trial for trial in trials}
    scheduler = halving and ASHAScheduler(
        time_attr="tokens",
        metric="loss_nats",
        mode="min",
        grace_period=halving.first_tokens,
        max_t=halving.last_tokens,
        reduction_factor=halving.reduction_factor,
        stop_last_trials=False,
    )
    threads = 1 if cluster.device == "cpu" else 0
    with (
        tempfile.TemporaryDirectory(prefix="trials-") as scratch,
        ray_launcher.terminating_as_interrupt(),
    ):
        tuner = tune.Tuner(
            tune.with_resources(_work, resources(cluster)),
            param_space={
                "trial": tune.grid_search(list(trials)),
                "threads": threads,
                "device": cluster.device,
                "to_the_end": halving is None,
            },
            tune_config=tune.TuneConfig(
                scheduler=scheduler, trial_dirname_creator=_short_name, trial_name_creator=_short_name
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=cluster.max_failures),
                callbacks=[_follower(by_name, fresh, told)],
            ),
        )
        try:
            results = tuner.fit()
        except KeyboardInterrupt:
            ray_launcher.shutdown()
            raise
    if results.errors:
        raise RunError(f"a trial failed: {_last_line(results.errors[0])}; {ray_launcher.GOES_ON}")


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _follower(by_name: dict[str, Trial], fresh: set[str], told: Told) -> Any:
    """Ray's events: what ended, what the search stopped, and whether Ray itself still lives."""
    from ray.tune import Callback

    class Follower(Callback):  # type: ignore[misc]
        """Runs in this process, between Tune's steps."""

        def __init__(self) -> None:
            self._looked_s = 0.0

        def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
            if time.monotonic() - self._looked_s > ray_launcher.POLL_INTERVAL_S:
                self._looked_s = time.monotonic()
                ray_launcher.check_head("a study's trials")

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ours = by_name[trial.config["trial"].name]
            if ours.outcomes() is None:  # only a search's trials are stopped, and have one job
                (job,) = ours.jobs
                stop(job)
            outcomes = ours.outcomes()
            assert outcomes is not None
            if ours.name in fresh:
                told(ours, outcomes)

    return Follower()


def _work(config: dict[str, Any]) -> None:
    """What Ray runs in a process of its own for every trial."""
    from ray import tune

    if config["threads"]:
        torch.set_num_threads(config["threads"])
    trial: Trial = config["trial"]
    device = torch.device(config["device"])
    outcomes = run_trial(trial, tune.report, device, say=lambda line: None, to_the_end=config["to_the_end"])
    last = outcomes[-1]
    if last.loss_nats is not None:
        tune.report({"tokens": float(last.tokens), "loss_nats": last.loss_nats})


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
