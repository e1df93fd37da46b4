"""Run an experiment: compose, check, then its stages in order.

python -m pipeline +experiment=NAME [scale=demo|small_gpu|paper] [key=value …]
"""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.experiment import Experiment
    from pipeline.experiment.work import Work
    from pipeline.tracking import Tracker


def main(arguments: list[str]) -> int:
    """The exit code: 0, 1 where started work failed, 2 for bad input, 130 when interrupted."""
    if not arguments or {"-h", "--help"} & set(arguments):
        from pipeline.experiment.help import text

        print(text())
        return 0
    from pipeline.experiment.run import guarded

    return guarded(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    from pipeline.experiment.experiment import load
    from pipeline.experiment.run import verbose

    experiment = load(arguments)
    with verbose(experiment.config):
        if experiment.config.debug.dry_run:
            return _print_plan(experiment)
        _check(experiment)
        _do_all(experiment)
        return 0


def _check(experiment: "Experiment") -> None:
    """Everything that would fail later, before any work."""
    from pathlib import Path

    from pipeline import files
    from pipeline.errors import ConfigError
    from pipeline.experiment.plan import make_plan

    for folder in experiment.config.paths.model_dump().values():
        files.check_writable(Path(folder), 0)
    plan = make_plan(experiment)
    if plan.faults:
        raise ConfigError("this experiment cannot run here:\n" + "\n".join(f"  - {fault}" for fault in plan.faults))
    for note in plan.notes:
        print(f"note: {note}", flush=True)


def _do_all(experiment: "Experiment") -> None:
    """Every stage in order, then what was left out, the command that opens the MLflow UI, and the time."""
    from pipeline import tracking

    config, started = experiment.config, time.monotonic()
    tracker = tracking.open_tracker(config)
    left_out: list[str] = []
    total, index = sum(1 for _ in experiment.work()), 0
    with tracker.experiment(config, experiment.key):
        for stage in experiment.stages:
            for work in experiment.work_of(stage):
                index += 1
                _do(work, f"[{index}/{total}] {work.name}", tracker, left_out)
            if hasattr(stage.script, "finish"):
                stage.script.finish()
    for line in left_out:
        print(f"left out {line}")
    command = tracking.ui_command(config)
    if command:
        print(f"MLflow   {command}")
    print(f"time     {(time.monotonic() - started) / 60:.1f} minutes")


def _do(work: "Work", label: str, tracker: "Tracker", left_out: list[str]) -> None:
    """One stage of one model, unless its result is there already."""
    from pipeline.errors import MissingRequirementError
    from pipeline.experiment.run import do

    state = work.state()
    if state.name == "done" and not work.stage.always:
        print(f"{label}: done before, kept ({work.result})")
        return
    again = f" again: {state.why}" if state.why and not work.stage.always else ""
    print(f"{label}: {work.stage.title}{again}", flush=True)
    begun = time.monotonic()
    try:
        do(work, work.stage.script.run, tracker)
    except MissingRequirementError as error:
        if not work.stage.optional:
            raise
        left_out.append(f"{work.name}: {error}")
        print(f"{label}: left out: {error}", file=sys.stderr)
        return
    print(f"{label}: {time.monotonic() - begun:.1f} s", flush=True)


def _print_plan(experiment: "Experiment") -> int:
    from pipeline.experiment.plan import make_plan
    from pipeline.experiment.plan_text import plan_text

    plan = make_plan(experiment)
    print(plan_text(experiment, plan))
    return 2 if plan.faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
