"""How every stage starts: compose, check, run, and turn expected errors into one message and an exit code."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.errors import PipelineError, PlanError
from pipeline.tracking import StageRun

StageFunction = Callable[[Config, StageRun], None]


@dataclass(frozen=True)
class Manner:
    """How a stage is run from the command line."""

    tracked: bool = True  # logged to MLflow
    plans_itself: bool = False  # debug=dry_run is the stage's own affair


def launch(run: StageFunction, description: str, tracked: bool = True, plans_itself: bool = False) -> int:
    """Run one stage from the command line; returns the exit code: 0, 1 (work failed) or 2 (bad input)."""
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(description.strip())
        return 0
    manner = Manner(tracked, plans_itself)
    return guarded(lambda: _run(run, overrides, manner), verbose="debug=verbose" in overrides)


def _run(run: StageFunction, overrides: list[str], manner: Manner) -> None:
    from pipeline import tracking
    from pipeline.compose import compose

    config = compose(overrides)
    name = run.__globals__["__spec__"].name.removeprefix("stages.")
    if config.debug.dry_run and not manner.plans_itself:
        _print_plan(name, config)
    elif manner.tracked:
        with tracking.open_tracker(config).stage(name, config) as log:
            run(config, log)
    else:
        run(config, StageRun())


def _print_plan(name: str, config: Config) -> None:
    """What the stage would do and what is missing for it; raises PlanError where something is."""
    from pipeline.experiment.plan import make_plan
    from pipeline.experiment.plan_text import plan_text
    from pipeline.experiment.stages import BY_NAME
    from pipeline.experiment.work import Experiment

    experiment = Experiment((config,), (BY_NAME[name],))
    plan = make_plan(experiment)
    print(plan_text(experiment, plan))
    if plan.faults:
        raise PlanError(f"{len(plan.faults)} thing(s) missing, listed above")


def guarded(work: Callable[[], None], verbose: bool = False) -> int:
    """Run `work`; an expected error becomes one message on stderr and its exit code."""
    try:
        work()
    except PipelineError as error:
        if verbose:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0
