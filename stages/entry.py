"""How every stage starts from the command line: compose, check, run unless it is done already."""

import sys
from typing import TYPE_CHECKING

from pipeline.experiment.run import guarded

if TYPE_CHECKING:
    from pipeline.experiment.run import RunFunction
    from pipeline.experiment.work import Work


def launch(run: "RunFunction", description: str) -> int:
    """Run one stage from the command line; returns the exit code: 0, 1 (work failed) or 2 (bad input)."""
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(description.strip())
        return 0
    return guarded(lambda: _run(run, overrides))


def _run(run: "RunFunction", overrides: list[str]) -> None:
    from pipeline import tracking
    from pipeline.compose import compose
    from pipeline.experiment.run import do, verbose
    from pipeline.experiment.stages import BY_NAME
    from pipeline.experiment.work import Work

    stage = BY_NAME[run.__globals__["__spec__"].name.removeprefix("stages.")]
    config = compose(overrides, {entry.partition(".")[0] for entry in (*stage.settings, *stage.also)})
    work = Work(stage, config)
    with verbose(config):
        if config.debug.dry_run:
            _print_plan(work)
        elif not work.stage.always and work.is_done():
            print(f"{work.name}: done before, kept ({work.result}); without that file it is done again")
        else:
            do(work, run, tracking.open_tracker(config))


def _print_plan(work: "Work") -> None:
    """What the stage would do and what is missing for it; raises PlanError where something is."""
    from pipeline.errors import PlanError
    from pipeline.experiment.experiment import Experiment
    from pipeline.experiment.plan import make_plan
    from pipeline.experiment.plan_text import plan_text

    experiment = Experiment((work.composed,), (work.stage,))
    plan = make_plan(experiment)
    print(plan_text(experiment, plan))
    if plan.faults:
        raise PlanError(f"{len(plan.faults)} thing(s) missing, listed above")
