"""One writer a run folder: a killed driver's worker may still be writing when the next run starts."""

import contextlib
import errno
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import OutputError

FILE = "lock"
NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems
POLL_S = 0.2


@contextlib.contextmanager
def run_lock(run_folder: Path, wait_s: float) -> Iterator[None]:
    """Hold the run folder, or raise OutputError where another process keeps it longer than `wait_s`.

    The lock goes with its process, however that ends.
    """
    deadline = time.monotonic() + wait_s
    with (run_folder / FILE).open("a") as file:
        while not _taken(file.fileno()):
            if time.monotonic() > deadline:
                raise OutputError(
                    f"{run_folder} is in use: the same training runs already; wait for it, "
                    "or choose another folder with paths.runs="
                )
            time.sleep(POLL_S)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
    return True
