"""Where a part runs and where it writes."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import provenance

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
SCRATCH = ROOT / "runs" / "gpu"
QUERY = "driver_version,power.limit,clocks.max.sm"


def device_name(device: torch.device) -> str:
    """Torch's name of a GPU, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name()


def slug(name: str) -> str:
    """A device's name as a folder's: NVIDIA H100 80GB HBM3 is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Place:
    """A device, a folder of results, and one of unfinished work; `tiny` is a rehearsal."""

    device: torch.device
    tiny: bool
    results: Path
    scratch: Path

    @classmethod
    def of(cls, device_type: str, tiny: bool, out: Path | None) -> "Place":
        """The first GPU, or the CPU; results under `out`, or under results/reference by the device's name."""
        device = torch.device("cuda", 0) if device_type == "cuda" else torch.device("cpu")
        if out is not None:
            return cls(device, tiny, out.resolve(), out.resolve() / "unfinished")
        return cls(device, tiny, REFERENCE / slug(device_name(device)), SCRATCH)

    @property
    def name(self) -> str:
        return device_name(self.device)

    def result_path(self, part: str) -> Path:
        return self.results / f"{part}.json"


def description(device: torch.device) -> dict[str, Any]:
    """What provenance says of a GPU beside its name; empty for a CPU."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "nvidia_smi": _nvidia_smi(),
        }
    }


def _nvidia_smi() -> dict[str, str] | None:
    """Driver, power limit and highest clock as the driver's own tool tells; None where it is missing."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(QUERY.split(","), (value.strip() for value in lines[0].split(",")), strict=False))
