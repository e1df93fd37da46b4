"""How fast training goes, and how near to the hardware's peak where that is known."""

import re
import sys
import time
from collections.abc import Iterable, Mapping

import torch

from pipeline.config.model import ModelConfig
from pipeline.models import count


def sheet_of(device_name: str, names: Iterable[str]) -> str | None:
    """The longest of `names` that torch's name of a device has as words; None where it has none, as laptops' cards."""
    if "Laptop" in device_name:  # another card under the same name
        return None
    return max((name for name in names if re.search(rf"\b{re.escape(name)}\b", device_name)), key=len, default=None)


def peak_flops(device_name: str, precision: str, device_flops: Mapping[str, float]) -> float | None:
    """The device's rate by its name, or None where it is unknown or the precision is not bfloat16."""
    name = sheet_of(device_name, device_flops)
    return None if name is None or precision != "bfloat16" else device_flops[name]


class Throughput:
    """Tokens per second between log lines; time spent on anything but steps is left out."""

    def __init__(
        self,
        model: ModelConfig,
        precision: str,
        device: torch.device,
        world_size: int,
        device_flops: Mapping[str, float],
    ) -> None:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        peak = peak_flops(name, precision, device_flops)
        self._peak = None if peak is None else peak * world_size
        self._flops_per_token = count.training_flops_per_token(model)
        self._device = device
        self._tokens, self._seconds, self._began = 0, 0.0, 0.0

    def start(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def stop(self, tokens: int) -> None:
        """A step of `tokens` over all workers has ended, but for what a GPU still does of it beside the next one."""
        self._seconds += time.perf_counter() - self._began
        self._tokens += tokens

    def take(self) -> tuple[float, float | None]:
        """(tokens/s, MFU or None) since the last call; waits for the GPU."""
        if self._device.type == "cuda":
            self.start()
            torch.cuda.synchronize(self._device)
            self.stop(0)
        rate = self._tokens / max(self._seconds, 1e-9)
        self._tokens, self._seconds = 0, 0.0
        return rate, None if self._peak is None else rate * self._flops_per_token / self._peak


def memory_bytes(device: torch.device) -> int:
    """Peak bytes on the GPU, or this process's peak resident set, which macOS counts in bytes and Linux in KiB."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
