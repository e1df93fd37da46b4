"""The run's log: one JSON line a record, written by the worker, followed by whoever shows it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline import files

Record = dict[str, Any]


class RunLog:
    """log.jsonl of a run; records carry "kind" (train, validation, sample) and "step"."""

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / "log.jsonl"

    def truncate(self, step: int) -> None:
        """Forget records behind `step`: a resume writes them again."""
        kept = [record for record in self.read() if record["step"] <= step]
        files.write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def append(self, record: Record) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[Record]:
        """All whole records."""
        return list(self.follow(0))

    def follow(self, skip: int) -> Iterator[Record]:
        """Whole records after the first `skip`; a line being written is left for the next call."""
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines()[skip:]:
            yield json.loads(line)


def text_line(record: Record, steps: int) -> str:
    """A record as a line for a terminal."""
    at = f"step {record['step']:>{len(str(steps))}}/{steps}"
    if record["kind"] == "validation":
        return f"{at}  validation loss {record['loss_nats']:.4f} nats"
    if record["kind"] == "sample":
        return f"{at}  sample: {record['text']!r}"
    mfu = "" if record["mfu"] is None else f"  MFU {record['mfu']:.1%}"
    return (
        f"{at}  loss {record['loss_nats']:.4f}  lr {record['learning_rate']:.2e}  grad {record['gradient_norm']:.2f}  "
        f"{record['tokens_per_s']:,.0f} tok/s{mfu}  {record['memory_bytes'] / 1e9:.2f} GB  "
        f"ETA {_duration(record['eta_s'])}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
