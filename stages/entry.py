"""How every stage starts: compose, check, run, and turn expected errors into one message and an exit code."""

import sys
import traceback
from collections.abc import Callable

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.tracking import StageRun

StageFunction = Callable[[Config, StageRun], None]


def launch(run: StageFunction, description: str, tracked: bool = True) -> int:
    """Run one stage from the command line; returns the exit code: 0, 1 (work failed) or 2 (bad input)."""
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(description.strip())
        return 0
    return guarded(lambda: _run(run, overrides, tracked), verbose="debug=verbose" in overrides)


def _run(run: StageFunction, overrides: list[str], tracked: bool) -> None:
    from pipeline import tracking
    from pipeline.compose import compose

    config = compose(overrides)
    if not tracked:
        run(config, StageRun())
        return
    name = run.__globals__["__spec__"].name.removeprefix("stages.")
    with tracking.open_tracker(config).stage(name, config) as log:
        run(config, log)


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
