"""Writing checkpoints behind the training's back: a snapshot is taken at once, its files are written by a thread."""

import contextlib
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.training import checkpoint
from pipeline.training.state import TrainingState


class Saver:
    """One rank's writer. Rank 0 makes a checkpoint of all ranks' parts once they are there."""

    def __init__(self, run_folder: Path, rank: int, keep: int, milestones: Collection[int]) -> None:
        self._run_folder, self._rank, self._keep, self._milestones = run_folder, rank, keep, milestones
        self._thread: threading.Thread | None = None
        self._abandoned = threading.Event()
        self._error: Exception | None = None

    @property
    def fault(self) -> str:
        """Why the last checkpoint could not be written; empty where nothing is known to be wrong."""
        return "" if self._error is None else str(self._error)

    def save(self, state: TrainingState, **more: Any) -> None:
        """Begin writing `state` as it is now, once the checkpoint before is written; `more` goes into state.json."""
        self.finish()
        layout = state.layout
        if not layout.fsdp and layout.dp_rank > 0:  # another worker has the same
            return
        taken = checkpoint.snapshot(state, copied=True, **more)
        self._thread = threading.Thread(target=self._write, args=(taken,), name="checkpoint", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until what was begun is written; raises OutputError where it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Leave nothing half written behind: not when training ends, nor when it fails."""
        try:
            yield
            self.finish()
        except BaseException:
            self._abandoned.set()
            with contextlib.suppress(Exception):
                self.finish()
            raise

    def _write(self, taken: checkpoint.Snapshot) -> None:
        try:
            checkpoint.write_part(self._run_folder, taken)
            if self._rank == 0:
                checkpoint.commit(self._run_folder, taken, self._keep, self._milestones, self._abandoned.is_set)
        except Exception as error:  # raised again where training waits for it
            self._error = error
