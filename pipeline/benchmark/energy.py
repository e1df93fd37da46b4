"""Joules that a processor or a GPU counts itself (RAPL under Linux' powercap, NVML); nothing where neither does."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

POWERCAP = Path("/sys/class/powercap")


class Rapl:
    """All packages of this machine and their memory; the counters wrap around, so it must be read now and then."""

    def __init__(self, zones: list["_Zone"]) -> None:
        self.zones = zones

    def joules(self) -> float:
        """Since the meter was made; raises OSError where a counter cannot be read any more."""
        return sum(zone.joules() for zone in self.zones)


@dataclass
class _Zone:
    folder: Path
    range_uj: int  # at which the counter begins again
    last_uj: int
    counted_uj: int = 0

    def joules(self) -> float:
        now = _number(self.folder / "energy_uj")
        self.counted_uj += (now - self.last_uj) % (self.range_uj + 1)
        self.last_uj = now
        return self.counted_uj / 1e6


class Nvml:
    """One GPU, since its driver was loaded."""

    def __init__(self, millijoules: Callable[[], int]) -> None:
        self.millijoules = millijoules

    def joules(self) -> float:
        return self.millijoules() / 1e3


def rapl(folder: Path = POWERCAP) -> Rapl | None:
    """The counters that this process may read; None where there are none (often only root may)."""
    zones = []
    for path in sorted(folder.glob("intel-rapl:*")):  # of AMD's processors too
        try:
            name = (path / "name").read_text().strip()
            if name.startswith("package") or name == "dram":  # core and uncore are parts of a package
                zones.append(_Zone(path, _number(path / "max_energy_range_uj"), _number(path / "energy_uj")))
        except (OSError, ValueError):
            continue
    return Rapl(zones) if zones else None


def nvml(device: torch.device) -> Nvml | None:
    """The counter of one GPU; None without pynvml, or where the GPU has none."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        meter = Nvml(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))
        meter.joules()
    except Exception:  # NVML has its own errors for each thing that a GPU or driver lacks
        return None
    return meter


def meter_of(device: torch.device, rank: int) -> Rapl | Nvml | None:
    """What a rank counts: its own GPU, or rank 0 alone the whole machine's processors."""
    if device.type == "cuda":
        return nvml(device)
    return rapl() if rank == 0 else None


def _number(path: Path) -> int:
    return int(path.read_text())
