"""Run an experiment: compose, check, then its stages in order.

python -m pipeline +experiment=NAME [scale=demo|small_gpu|paper] [key=value …]
"""

import importlib
import sys
import time
from typing import TYPE_CHECKING

from pipeline.errors import MissingRequirementError, PipelineError

if TYPE_CHECKING:
    from pipeline.experiment.work import Experiment, Work
    from pipeline.tracking import Tracker


def main(arguments: list[str]) -> int:
    """The exit code: 0, 1 where started work failed, 2 for bad input, 130 when interrupted."""
    if not arguments or {"-h", "--help"} & set(arguments):
        from pipeline.experiment.help import text

        print(text())
        return 0
    try:
        return _run(arguments)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _run(arguments: list[str]) -> int:
    from pipeline import tracking
    from pipeline.experiment import work as experiments

    experiment = experiments.load(arguments)
    if experiment.config.debug.dry_run:
        return _print_plan(experiment)
    _check(experiment)
    tracker = tracking.open_tracker(experiment.config)
    started = time.monotonic()
    skipped: list[str] = []
    with tracker.experiment(experiment.config):
        work = list(experiment.work())
        for index, item in enumerate(work, 1):
            _do(item, f"[{index}/{len(work)}]", tracker, skipped)
            if item.stage.name == "train" and work[index : index + 1] and work[index].stage.name != "train":
                _stop_ray()
    _finish(experiment, time.monotonic() - started, skipped)
    return 0


def _check(experiment: "Experiment") -> None:
    """Everything that would fail later, before any work."""
    from pathlib import Path

    from pipeline import files
    from pipeline.errors import ConfigError
    from pipeline.experiment.plan import make_plan

    paths = experiment.config.paths
    for folder in (paths.data, paths.trained, paths.runs, paths.engines, paths.results, paths.report):
        files.check_writable(Path(folder), 0)
    faults = make_plan(experiment).faults
    if faults:
        raise ConfigError("this experiment cannot run here:\n" + "\n".join(f"  - {fault}" for fault in faults))


def _do(item: "Work", position: str, tracker: "Tracker", skipped: list[str]) -> None:
    """One stage of one model, unless its result is there already."""
    if not item.stage.always and item.is_done():
        print(f"{position} {item.name}: done before, kept ({item.stage.result(item.config)})")
        return
    print(f"{position} {item.name}: {item.stage.title}", flush=True)
    begun = time.monotonic()
    module = importlib.import_module(item.stage.module)
    try:
        with tracker.stage(item.name, item.config) as log:
            module.run(item.config, log)
    except MissingRequirementError as error:
        if item.stage.name != "build_engine":
            raise
        skipped.append(f"{item.name}: {error}")
        print(f"{position} {item.name}: left out: {error}", file=sys.stderr)
        return
    print(f"{position} {item.name}: {time.monotonic() - begun:.1f} s", flush=True)


def _stop_ray() -> None:
    """Training is over: Ray's processes must not share the cores with what is timed next."""
    if "ray" in sys.modules:
        from pipeline.training import ray_launcher

        ray_launcher.shutdown()


def _finish(experiment: "Experiment", seconds: float, skipped: list[str]) -> None:
    """The summary table, the report's path and the command that opens the MLflow UI."""
    from pathlib import Path

    from pipeline import files, tracking
    from pipeline.report import summary

    config = experiment.config
    if "report" in {stage.name for stage in experiment.stages}:
        print()
        print(summary(files.read_json(Path(config.paths.report, "report.json"))))
        print(f"\nreport   {Path(config.paths.report, 'index.html')}")
    for line in skipped:
        print(f"left out {line}")
    command = tracking.ui_command(config)
    if command:
        print(f"MLflow   {command}")
    print(f"time     {seconds / 60:.1f} minutes")


def _print_plan(experiment: "Experiment") -> int:
    from pipeline.experiment.plan import make_plan
    from pipeline.experiment.plan_text import plan_text

    plan = make_plan(experiment)
    print(plan_text(experiment, plan))
    return 2 if plan.faults else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
