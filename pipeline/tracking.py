"""MLflow behind a small interface. The only file that imports mlflow."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class StageRun:
    """What a stage may log. This base logs nowhere: the null tracker."""

    def log_params(self, values: dict[str, Any]) -> None:
        """Settings, once; nested keys joined by dots."""

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Numbers, at a step of training or once."""

    def log_series(self, rows: list[tuple[int, dict[str, float]]]) -> None:
        """Many (step, numbers) at once: one call to the store."""

    def log_artifact(self, path: Path) -> None:
        """A file or a folder to keep with the run."""


class Tracker:
    """Opens one child run a stage. This base logs nowhere."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageRun]:
        """`name` is a stage, with its model where it has one: "train demo_standard"."""
        yield StageRun()
