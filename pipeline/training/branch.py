"""The checkpoint of another run that a run begins with (training.branch_from)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files, provenance
from pipeline.config.model import ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.errors import CheckpointError
from pipeline.training import checkpoint

RUN = "run.json"  # in a run's folder: what its weights depend on


@dataclass(frozen=True)
class Branch:
    """Where a run branches off; what the checkpoint holds names it, wherever it lies."""

    folder: Path
    step: int
    skipped: int  # steps left out, their gradients being no numbers
    tokens: int  # tokens seen
    fingerprint: str  # of the run that took the steps
    sha256: dict[str, str]  # of its files
    model: dict[str, Any] | None  # the model's identity, where it is known

    @classmethod
    def of(cls, training: TrainingConfig) -> "Branch | None":
        """What training.branch_from names: a checkpoint, or a run's newest; None where it is null.

        Raises CheckpointError where there is none.
        """
        if training.branch_from is None:
            return None
        key, named = f"training.branch_from={training.branch_from}", Path(training.branch_from)
        folder = next(reversed(checkpoint.checkpoints(named)), named).resolve()
        try:
            body = files.read_json(folder / checkpoint.STATE)
            position = (body["step"], body["skipped"], body["tokens"])
            found = cls(folder, *position, body["fingerprint"], checkpoint.hashes_of(body), body.get("model"))
        except (OSError, *checkpoint.UNREADABLE):
            raise CheckpointError(
                f"{key}: no checkpoint there; must be the folder of one, as runs/<scale>/<run>/checkpoints/step-…, "
                "or the folder of a run, whose newest is taken"
            ) from None
        missing = [name for name in found.sha256 if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(f"{key}: the checkpoint is damaged, {', '.join(missing)} is missing")
        return found

    @property
    def digest(self) -> str:
        """12 hex digits that name the content."""
        return provenance.fingerprint(self.step, self.skipped, self.tokens, self.sha256)

    def check(self, model: ModelConfig, training: TrainingConfig) -> None:
        """Raise CheckpointError where this model cannot go on from here, or has no step left to take."""
        key = f"training.branch_from={training.branch_from}"
        if self.step >= training.steps:
            raise CheckpointError(
                f"{key}: that checkpoint is at step {self.step}: training.steps={training.steps} must be more"
            )
        theirs, ours = self.model or self._model_of_its_run(), model.identity()
        if theirs is None:
            raise CheckpointError(
                f"{key}: nothing says which model it is of; name it where it was written, in the folder of its run"
            )
        theirs = {**{name: ModelConfig.model_fields[name].default for name in ours}, **theirs}  # fields that came later
        differing = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
        if differing:
            there = ", ".join(
                f"model.{name} is {theirs.get(name)} there and {ours.get(name)} here" for name in differing
            )
            raise CheckpointError(f"{key}: that checkpoint is of another model: {there}")

    def _model_of_its_run(self) -> dict[str, Any] | None:
        try:
            return dict(files.read_json(self.folder.parent.parent / RUN)["model"])
        except (OSError, *checkpoint.UNREADABLE):
            return None
