"""What finished launches answered, kept on disk until the result is written: a killed run goes on from there."""

import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import files

BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux alone has it


@dataclass
class CellAnswer:
    """What one launch of ranks answered about one cell; plain data."""

    size: str
    context: int
    batch_size: int
    link: str
    link_bits_per_s: float | None
    shared_weights: bool
    matrix_flops_per_s: float | None
    others_cpu_share: float | None = None
    steal_share: float | None = None
    rounds: dict[str, Any] | None = None  # as RankWorker.measure answers; None where tokens were decoded or served
    decoded: dict[str, list[list[float]]] | None = None  # milliseconds by architecture, round and step
    concurrency: int = 0  # clients served
    served: dict[str, dict[str, Any]] | None = None  # by architecture, as RankWorker.serve answers
    instrumented: list[dict[str, Any]] = field(default_factory=list)  # by rank
    energy_joules: dict[str, float] = field(default_factory=dict)  # of one prefill, by architecture

    @property
    def key(self) -> tuple[str, int, int, int, str, bool]:
        """The cell, and whether it was decoded."""
        return self.size, self.context, self.batch_size, self.concurrency, self.link, self.decoded is not None


class Kept:
    """A folder beside the result, hidden, whose name has the identity of the work; one file a finished launch.

    `check` is called before a launch is kept, and raises where it may not be.
    """

    def __init__(self, result: Path, identity: str, check: Callable[[], None] = lambda: None) -> None:
        self.result, self.check = result, check
        self.folder = result.with_name(f".{result.stem}.{identity}.launches")

    def read(self, name: str) -> list[CellAnswer] | None:
        """A launch's answers; None where it has not finished on this very machine, or its file is damaged."""
        try:
            body = files.read_json(self.folder / f"{name}.json")
            return [CellAnswer(**raw) for raw in body["answers"]] if body["machine"] == machine() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, answers: list[CellAnswer]) -> None:
        self.check()
        body = {"machine": machine(), "answers": [asdict(one) for one in answers]}
        files.write_text(self.folder / f"{name}.json", json.dumps(body))

    def remove(self) -> None:
        """What was kept for this result, by whatever identity."""
        for folder in self.result.parent.glob(f".{self.result.stem}.*.launches"):
            shutil.rmtree(folder, ignore_errors=True)


def machine() -> str:
    """Launches of one row must not come from two machines, boots, sets of cores or versions of torch."""
    boot = BOOT.read_text().strip() if BOOT.exists() else "unknown"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()} {platform.machine()} boot {boot} cores {cores} torch {metadata.version('torch')}"
