"""Doing one piece of work, and turning expected errors into one message and an exit code: what both entrances share."""

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.experiment.work import Work
from pipeline.tracking import StageRun, Tracker

RunFunction = Callable[[Work, StageRun], None]


def do(work: Work, run: RunFunction, tracker: Tracker) -> None:
    """Run a stage script on `work`, logged; raises PipelineError where it cannot be done or fails."""
    work.begin()
    with tracker.stage(work.name, work.composed, work.key) as log:
        run(work, log)


def guarded(action: Callable[[], int | None]) -> int:
    """The exit code of `action`: an expected error is one message on stderr and its own code, an interrupt 130."""
    try:
        return action() or 0
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def verbose(config: Config) -> Iterator[None]:
    """With debug.verbose, an expected error shows its traceback too."""
    try:
        yield
    except PipelineError:
        if config.debug.verbose:
            traceback.print_exc()
        raise
