"""What a rank is told when it starts, and the variants of a model that are timed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pipeline import files
from pipeline.config.benchmark import BASELINE, unwired
from pipeline.config.model import ModelConfig
from pipeline.models import count

Mode = Literal["overlapped", "blocking", "skipped"]
HEARTBEAT_S = 1.0


@dataclass(frozen=True)
class RankSpec:
    """One launch of `tp_size` ranks; written as JSON for `python -m pipeline.benchmark.ranks.rank SPEC RANK`."""

    tp_size: int
    store: str  # file through which ranks find each other: no fixed port can be in use
    device: str
    dtype: str
    threads: int
    cores: list[list[int]]  # cores each rank is pinned to; empty: not pinned
    transport: str
    interfaces: list[str]  # network interface of each rank
    timeout_s: float
    seed: int
    cuda_graph: bool

    def write(self, path: Path) -> None:
        files.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "RankSpec":
        return cls(**files.read_json(path))


@dataclass(frozen=True)
class Variant:
    """An architecture and what becomes of its collectives."""

    architecture: str
    mode: Mode

    @property
    def key(self) -> str:
        return f"{self.architecture}/{self.mode}"

    @property
    def is_diagnostic(self) -> bool:
        """Whether it explains a row, and is none itself; the baseline without collectives is the bound's row."""
        return self.mode != "overlapped" and (self.architecture, self.mode) != (BASELINE, "skipped")


def variants(models: Mapping[str, ModelConfig]) -> list[Variant]:
    """Everything that a round times: as built, without collectives, and without overlap where there is any."""
    found = []
    for architecture, model in models.items():
        found.append(Variant(architecture, "overlapped"))
        if unwired(architecture) == architecture:  # without its sums it is the same on any wire
            found.append(Variant(architecture, "skipped"))
        counted = count.collectives(model)
        if counted.blocking < counted.total:
            found.append(Variant(architecture, "blocking"))
    return found
