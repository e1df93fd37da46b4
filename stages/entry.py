"""How every stage starts: compose, check, run, and turn expected errors into one message and an exit code."""

import sys
from collections.abc import Callable

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.tracking import StageRun

StageFunction = Callable[[Config, StageRun], None]


def launch(run: StageFunction, description: str) -> int:
    """Run one stage from the command line; returns the exit code: 0, 1 (work failed) or 2 (bad input)."""
    overrides = sys.argv[1:]
    if {"-h", "--help"} & set(overrides):
        print(description.strip())
        return 0
    try:
        from pipeline.compose import compose

        run(compose(overrides), StageRun())
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0
