"""Scored tasks, kept: an interrupted evaluation goes on with the next task.

The key holds everything a score depends on, the weights' hash first, so that no two checkpoints share
an entry.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.provenance import fingerprint

FORMAT = 1


@dataclass(frozen=True)
class TaskCache:
    """A folder with one JSON file per scored task; `common` is what all tasks of this evaluation share."""

    folder: Path
    common: dict[str, Any]

    def get(self, task: str, **parts: Any) -> dict[str, Any] | None:
        """What was kept for this very key, or None; a damaged file counts as none."""
        path, key = self._locate(task, parts)
        try:
            kept = files.read_json(path)
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
            return None
        if not isinstance(kept, dict) or kept.get("key") != key:
            return None
        record = kept.get("record")
        return record if isinstance(record, dict) else None

    def put(self, task: str, record: dict[str, Any], **parts: Any) -> None:
        """Keep a record under its key, atomically."""
        path, key = self._locate(task, parts)
        files.write_text(path, json.dumps({"key": key, "record": record}) + "\n")

    def _locate(self, task: str, parts: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        key = {"format": FORMAT, "task": task, **self.common, **parts}
        return self.folder / f"{task.replace('/', '_')}-{fingerprint(key)}.json", key
