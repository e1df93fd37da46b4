"""The run's log: one JSON line a record, written by the worker, followed by whoever shows it."""

import json
import os
from pathlib import Path
from typing import Any

from pipeline import files

Record = dict[str, Any]
NOTABLY_SLOW = 1.2  # a rank's share of the median time


class RunLog:
    """log.jsonl of a run; records carry "kind" (train, validation, sample, skipped) and "step"."""

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / "log.jsonl"

    def truncate(self, step: int) -> None:
        """Forget records behind `step`: a resume writes them again."""
        self.replace([record for record in self.read() if record["step"] <= step])

    def replace(self, records: list[Record]) -> None:
        files.write_text(self.path, "".join(json.dumps(record) + "\n" for record in records))

    def append(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[Record]:
        """All whole records."""
        return LogTail(self).new_records()


class LogTail:
    """What a log has gained since the last look; each record is handed out once."""

    def __init__(self, log: RunLog) -> None:
        self._path = log.path
        self._offset, self._inode = 0, 0
        self._seen: set[tuple[int, str]] = set()

    def new_records(self) -> list[Record]:
        """Whole records not yet handed out; a line being written is left for the next call."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # a worker that resumed has cut the log back: it is another file
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [record for record in map(json.loads, whole.splitlines()) if self._is_new(record)]

    def _is_new(self, record: Record) -> bool:
        key = (record["step"], record["kind"])
        new = key not in self._seen
        self._seen.add(key)
        return new


def text_line(record: Record, steps: int) -> str:
    """A record as a line for a terminal."""
    at = f"step {record['step']:>{len(str(steps))}}/{steps}"
    if record["kind"] == "validation":
        return f"{at}  validation loss {record['loss_nats']:.4f} nats"
    if record["kind"] == "sample":
        return f"{at}  sample: {record['text']!r}"
    if record["kind"] == "skipped":
        return (
            f"{at}  left out: loss {record['loss_nats']}, grad {record['gradient_norm']}, "
            f"windows from tokens {record['windows']}"
        )
    mfu = "" if record["mfu"] is None else f"  MFU {record['mfu']:.1%}"
    slow = record.get("slowest_ratio", 1.0) >= NOTABLY_SLOW
    behind = f"  rank {record['slowest_rank']} takes {record['slowest_ratio']:.1f}x the median" if slow else ""
    return (
        f"{at}  loss {record['loss_nats']:.4f}  lr {record['learning_rate']:.2e}  grad {record['gradient_norm']:.2f}  "
        f"{record['tokens_per_s']:,.0f} tok/s{mfu}  {record['memory_bytes'] / 1e9:.2f} GB  "
        f"ETA {_duration(record['eta_s'])}{behind}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
