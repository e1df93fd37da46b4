"""One writer a run folder: a killed driver's worker may still be writing when the next run starts."""

from contextlib import AbstractContextManager
from pathlib import Path

from pipeline import files

FILE = "lock"


def run_lock(run_folder: Path, wait_s: float) -> AbstractContextManager[None]:
    """Hold the run folder, or raise OutputError where another process keeps it longer than `wait_s`."""
    in_use = f"{run_folder} is in use: the same training runs already; wait for it, or choose another with paths.runs="
    return files.locked(run_folder / FILE, wait_s, in_use)
