"""What a new run begins with: the steps of a run that did the same so far, a checkpoint it branches from, or nothing.

A run's folder is its own, whatever it begins with: files of checkpoints are linked, and each run thins its own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, provenance
from pipeline.config.training import TrainingConfig
from pipeline.data.manifest import read as read_manifest
from pipeline.errors import CheckpointError
from pipeline.training import checkpoint, origin
from pipeline.training.branch import RUN, Branch
from pipeline.training.job import TrainingJob
from pipeline.training.log import Record, RunLog
from pipeline.training.schedule import parting

# Settings of which the weights so far depend at most by the learning rates, and those are compared step by step
NOTES = ("eval_interval", "eval_windows", "sample_tokens")
BESIDE_THE_TRUNK = {
    *("schedule", "steps", "learning_rate", "min_learning_rate_ratio", "warmup_steps", "decay_steps"),
    *NOTES,
    *("name", "branch_from"),  # the content of a branch counts
}


def begin(job: TrainingJob, say: Callable[[str], None]) -> None:
    """Give a run that has no checkpoint yet the best one there is; for the holder of the run folder's lock.

    That is the newest of a run with the same tokens, code, model and settings whose learning rates were the same up to
    there, or the one that it branches from. run.json is written for runs that come later. Raises CheckpointError where
    the branch cannot be read, OutputError where nothing can be written.
    """
    branch = Branch.of(job.training)
    own = _description(job, branch)
    files.write_json(job.run_folder / RUN, own)
    if _extend(job, own, say) or branch is None:
        return
    try:
        _take(job, own, branch.folder, branch.step, branch.fingerprint)
    except _UnreadableError as error:
        raise CheckpointError(f"training.branch_from={job.training.branch_from}: {error}") from None
    say(f"branches from {branch.folder} at step {branch.step}")


def read(run_folder: Path) -> dict[str, Any]:
    """run.json: "adopted" {"fingerprint", "step"} and "branched" {"fingerprint", "step", "digest"}, each or null."""
    path = run_folder / RUN
    return dict(files.read_json(path)) if path.is_file() else {"adopted": None, "branched": None}


def _description(job: TrainingJob, branch: Branch | None) -> dict[str, Any]:
    """What run.json says; runs of one trunk have the same weights as long as their learning rates are the same."""
    training = job.training.model_dump(mode="json")
    branched = branch and {"fingerprint": branch.fingerprint, "step": branch.step, "digest": branch.digest}
    trunk = provenance.fingerprint(
        job.model.identity(),
        [shard["sha256"] for shard in read_manifest(job.data_folder)["shards"]],
        {key: value for key, value in training.items() if key not in BESIDE_THE_TRUNK},
        job.fingerprint.rpartition("-")[2],  # of the code
        branched and branched["digest"],
    )
    return {
        "trunk": trunk,
        "fingerprint": job.fingerprint,
        "model": job.model.identity(),
        "training": training,
        "adopted": None,
        "branched": branched,
    }


@dataclass(frozen=True)
class _Sibling:
    """Another run of the same trunk."""

    run_folder: Path
    fingerprint: str
    training: TrainingConfig
    same_until: int  # the step up to which its learning rates are the new run's
    checkpoints: list[Path]  # behind the branch, oldest first

    def rank(self, folder: Path, ours: TrainingConfig) -> tuple[str, int]:
        """What makes one of its checkpoints the better choice: a later step, then notes that `ours` would take too."""
        alike = [getattr(ours, name) == getattr(self.training, name) for name in NOTES]
        return folder.name, sum(alike)


def _siblings(job: TrainingJob, trunk: str, start: int) -> Iterator[_Sibling]:
    """Runs beside this one that may have been here before, and have checkpoints behind step `start`."""
    for run_folder in sorted(job.run_folder.parent.iterdir()):
        kept = [folder for folder in checkpoint.checkpoints(run_folder) if checkpoint.step_of(folder) > start]
        try:
            theirs = read(run_folder)
            if not kept or run_folder == job.run_folder or theirs.get("trunk") != trunk:
                continue
            training = TrainingConfig.model_validate(theirs["training"])
            yield _Sibling(run_folder, theirs["fingerprint"], training, parting(job.training, training, start), kept)
        except (OSError, KeyError, TypeError, ValueError):  # run.json is damaged, or of other code
            continue


def _extend(job: TrainingJob, own: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Take over the newest checkpoint up to which a sibling did the same; or say why one that began alike has none."""
    start = own["branched"]["step"] if own["branched"] else 0
    siblings = list(_siblings(job, own["trunk"], start))
    usable = [
        (folder, one)
        for one in siblings
        for folder in one.checkpoints
        if checkpoint.step_of(folder) <= min(one.same_until, job.training.steps - 1)
    ]
    for folder, one in sorted(usable, key=lambda pair: pair[1].rank(pair[0], job.training), reverse=True):
        step = checkpoint.step_of(folder)
        adopting = {**own, "adopted": {"fingerprint": one.fingerprint, "step": step}}
        try:
            _take(job, adopting, folder, step, one.fingerprint, one.training)
        except _UnreadableError as error:
            say(f"{error}; passed over")
            continue
        say(f"extends {one.run_folder} from step {step}")
        return True
    for one in sorted(siblings, key=lambda one: one.same_until)[-1:]:
        oldest = checkpoint.step_of(one.checkpoints[0])
        if start < one.same_until < oldest:
            is_cosine = "cosine" in (one.training.schedule, job.training.schedule)
            mend = "; a cosine depends on all its steps, a run with training.schedule=wsd can be extended"
            say(
                f"begins anew: {one.run_folder} had the same learning rates until step {one.same_until}, its oldest "
                f"checkpoint is of step {oldest}{mend if is_cosine else ''}"
            )
    return False


class _UnreadableError(Exception):
    """A checkpoint that is damaged or not what it should be, or was thinned out by its run just now."""


def _take(
    job: TrainingJob,
    own: dict[str, Any],
    folder: Path,
    step: int,
    fingerprint: str,
    theirs: TrainingConfig | None = None,
) -> None:
    """Make the checkpoint of `step` of another run, that of this `fingerprint`, this run's, and run.json `own`.

    With that run's settings, `theirs`, its log and validations come along as far as this run would have made the same.
    Without, they do not count here, nor do their seconds. The checkpoint comes last: before it stands, all can be
    done again.
    """
    run_folder, target = folder.parent.parent, checkpoint.folder_of(job.run_folder, step)  # by any name there
    with files.atomic_path(target) as temporary:
        temporary.mkdir(parents=True)
        try:
            state = files.read_json(folder / checkpoint.STATE)
            if (state["fingerprint"], state["step"]) != (fingerprint, step):
                raise _UnreadableError(
                    f"{folder} holds step {state['step']} of {state['fingerprint']}, not step {step} of {fingerprint}"
                )
            log = RunLog(run_folder).read() if theirs else []
            if theirs and not any(one["kind"] == "train" and one["step"] <= step for one in log):
                raise _UnreadableError(f"{folder} has no record of its steps in {RunLog(run_folder).path}")
            for name, expected in checkpoint.hashes_of(state).items():
                _link(folder / name, temporary / name)
                if files.sha256_of(temporary / name) != expected:
                    raise _UnreadableError(f"{folder} is damaged ({name} has other bytes than were written)")
            state["validation"] = [
                one for one in state["validation"] if _is_noted(job.training, theirs, {"kind": "validation", **one})
            ]
            state["seconds"] = state["seconds"] if theirs else 0.0
        except FileNotFoundError as error:
            raise _UnreadableError(f"{folder} is no longer whole ({Path(error.filename).name} is missing)") from None
        except checkpoint.UNREADABLE as error:
            raise _UnreadableError(f"{folder} is damaged ({error})") from None
        kept = [one for one in log if one["step"] <= step and _is_noted(job.training, theirs, one)]
        state["fingerprint"] = job.fingerprint
        files.write_json(temporary / checkpoint.STATE, state)
        files.flush(temporary / checkpoint.STATE)
        files.write_json(job.run_folder / RUN, own)
        RunLog(job.run_folder).replace(kept)
        origin.adopt(job.run_folder, run_folder, step)
    files.flush(target.parent)


def _is_noted(ours: TrainingConfig, theirs: TrainingConfig | None, record: Record) -> bool:
    """Whether this run would have written the same record."""
    decides = {"validation": "eval_windows", "sample": "sample_tokens"}.get(record["kind"])
    if decides is None or theirs is None:
        return theirs is not None
    same_way = getattr(ours, decides) == getattr(theirs, decides)
    return bool(same_way and record["step"] % ours.eval_interval == 0)


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where that cannot be."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
        files.flush(target)
