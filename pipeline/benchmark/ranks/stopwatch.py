"""One forward, timed: host clock everywhere, CUDA events besides on a GPU."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.communication.clock import milliseconds_between, new_event


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
