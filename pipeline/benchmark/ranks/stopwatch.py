"""One forward, timed: host clock everywhere, CUDA events besides on a GPU; and what the device could do at best."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.communication.clock import milliseconds_between, new_event

MATRIX_SIZE = {"cpu": 1536, "cuda": 8192}  # large enough that nothing but arithmetic counts
MATRIX_PRODUCTS = 5


def lap(work: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """Milliseconds of `work` until the token was on the host, and on the device's own clock (0 on CPU)."""
    if device.type != "cuda":
        begun = time.perf_counter()
        work().tolist()
        return (time.perf_counter() - begun) * 1e3, 0.0
    begin, end = new_event(), new_event()
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    begin.record()
    token = work()
    end.record()
    token.tolist()  # the only wait: the token's copy to the host
    taken = (time.perf_counter() - begun) * 1e3
    return taken, milliseconds_between(begin, end)


@torch.inference_mode()
def matrix_flops_per_s(device: torch.device, dtype: torch.dtype, barrier: Callable[[], None]) -> float:
    """FLOP/s of one square matrix product: the median of a few, each released by the barrier, after one to warm up."""
    size = MATRIX_SIZE[device.type]
    x, weight = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))  # (size, size) each
    taken = []
    for _ in range(MATRIX_PRODUCTS + 1):
        barrier()
        host_ms, device_ms = lap(lambda: functional.linear(x, weight)[0, :1], device)
        taken.append(device_ms or host_ms)
    return 2e3 * size**3 / statistics.median(taken[1:])
