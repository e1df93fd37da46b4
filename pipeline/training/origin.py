"""Which commits took a run's steps, and runs of the same settings that other code began."""

from pathlib import Path
from typing import TypedDict

from pipeline import files
from pipeline.training import checkpoint

FILE = "commits.json"


class Origin(TypedDict):
    """From `from_step` on, this commit's code took the steps."""

    commit: str
    from_step: int


def last_step(run_folder: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    kept = checkpoint.checkpoints(run_folder)
    return checkpoint.step_of(kept[-1]) if kept else 0


def read(run_folder: Path) -> list[Origin]:
    """Commits in the order of their steps; empty before the first."""
    path = run_folder / FILE
    return list(files.read_json(path)) if path.is_file() else []


def note(run_folder: Path, commit: str) -> None:
    """This commit goes on from the newest checkpoint; what was to follow that one is forgotten."""
    step = last_step(run_folder)
    before = [one for one in read(run_folder) if one["from_step"] < step]
    if not before or before[-1]["commit"] != commit:
        files.write_json(run_folder / FILE, [*before, {"commit": commit, "from_step": step}])


def adopt(run_folder: Path, other: Path, step: int) -> None:
    """The first `step` steps are those of the run in `other`."""
    files.write_json(run_folder / FILE, [one for one in read(other) if one["from_step"] < step])


def unfinished_by_other_code(run_folder: Path, steps: int) -> list[tuple[Path, int]]:
    """(folder, step) of runs that differ from this one in their code alone and have not taken all steps."""
    settings = run_folder.name.rpartition("-")[0]
    others = (one for one in run_folder.parent.glob(f"{settings}-*") if one != run_folder)
    return [(one, step) for one in sorted(others) if 0 < (step := last_step(one)) < steps]
