"""A part: a question that a GPU answers within minutes, and the file that keeps the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.place import ROOT, Place
from benchmarks.gpu.results import Figure, GpuResult, Unit
from benchmarks.gpu.settings import Settings
from pipeline.errors import ResultError
from pipeline.experiment.closure import closure, digests
from pipeline.provenance import fingerprint
from pipeline.results import file as result_file

LIMIT_S = 480.0  # no part takes longer at a time: the same command goes on where it was


@dataclass(frozen=True)
class Wanted:
    """A figure that a part is to give, and what it should come to on an H100 or H200."""

    name: str
    unit: Unit
    at_least: float | None = None


@dataclass
class Found:
    """What a part has found so far."""

    figures: list[Figure]
    notes: list[str]
    more: dict[str, Any]  # further fields of GpuResult


Answer = Found | str  # a line where there is nothing to find here
Run = Callable[["Part", Place, Settings, Path], Answer]


@dataclass(frozen=True)
class Part:
    """One part. `run(part, place, settings, folder)` may keep unfinished work in `folder`."""

    name: str
    question: str
    minutes: float  # on an H100, about
    wanted: tuple[Wanted, ...]
    code: tuple[str, ...]  # the files of this package and modules of the pipeline that determine the figures
    settings: Callable[[Settings], Mapping[str, Any]]  # those that do
    run: Run

    def identity(self, place: Place, settings: Settings) -> str:
        """Names the work: equal only for the same settings, device, torch and code."""
        paths = closure([ROOT / name for name in self.code])
        return fingerprint(
            self.name, self.settings(settings), place.name, place.tiny, torch.__version__, digests(paths)
        )

    def result(self, place: Place, settings: Settings) -> GpuResult | None:
        """The answer that is there, if it is of this very work."""
        found = self.any_result(place.results)
        return found if found is not None and found.identity == self.identity(place, settings) else None

    def any_result(self, folder: Path) -> GpuResult | None:
        """The answer in `folder`, of whatever settings and code; None where there is none that can be read."""
        try:
            return result_file.read(folder / f"{self.name}.json", GpuResult)
        except (FileNotFoundError, ResultError):
            return None

    def figure(self, name: str, value: float, measured: bool = True) -> Figure:
        """A figure with the unit that was announced for it; raises KeyError for another."""
        units = {one.name: one.unit for one in self.wanted}
        return Figure(kind="measured" if measured else "counted", name=name, value=float(value), unit=units[name])
