"""Why training through Ray failed, in one line; and which failures trying again would only repeat.

Imports ray at once, so only `ray_launcher` imports it, where work begins.
"""

import errno
from typing import Any

from ray.train import UserCallback

from pipeline.config.execution import ClusterConfig
from pipeline.errors import OutputError, PipelineError
from pipeline.training.job import NonFiniteError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
TIMED_OUT = ("timed out", "timeout")  # gloo's and NCCL's words


class EndAtOnce(UserCallback):  # type: ignore[misc]
    """Ends a run at an error of our own, such as a full disk: workers started again would meet it again."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for _, error in sorted(worker_exceptions.items()):
            if isinstance(error, PipelineError | NonFiniteError):
                raise error  # Ray's controller takes an error here for one that it does not retry
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise OutputError(f"cannot write {error.filename or 'the log'}: {error.strerror}")


def told(raised: BaseException) -> Exception | None:
    """The error of our own that ended a run; None where it was another."""
    error = getattr(raised, "controller_failure", None)
    return error if isinstance(error, PipelineError | NonFiniteError) else None


def reason(raised: BaseException, cluster: ClusterConfig) -> str:
    """What `trainer.fit` raised, in a line that names the ranks and the setting that would change it."""
    failures: dict[int, BaseException] = getattr(raised, "worker_failures", {})
    died = [rank for rank, error in failures.items() if hasattr(error, "health_check_failure")]
    waited = [rank for rank, error in failures.items() if any(word in str(error).lower() for word in TIMED_OUT)]
    times = f"; cluster.max_failures={cluster.max_failures} such failures are survived"
    if waited and not died:
        return (
            f"{_ranks(waited)} waited longer than cluster.collective_timeout_minutes="
            f"{cluster.collective_timeout_minutes:g} for another worker, which has stopped or is far slower "
            f"({_last_line(failures[waited[0]])}){times}"
        )
    if died:
        return f"the process of {_ranks(died)} ended: killed from outside, or out of memory{times}"
    if failures:
        rank, error = min(failures.items())
        return f"{_ranks([rank])}: {type(error).__name__}: {_last_line(error)}{times}"
    return _last_line(raised)


def _ranks(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
