"""All-reduce on a CUDA stream of its own: NCCL, or a stand-in of known duration where there is one GPU.

The paper's way: the sum is launched on a second stream before the QKV product and awaited after the attention's
output product; the two copies this costs are the price of buffers that the stream owns. No host waits anywhere,
so the whole forward can be captured in one CUDA graph.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.communication.clock import milliseconds_between, new_event

# TensorRT-LLM's MAX_ALL_REDUCE_BLOCKS and DEFAULT_BLOCK_SIZE (customAllReduceKernels.h): what its sums take of a GPU
BLOCKS, THREADS = 24, 512
SPIN = """
extern "C" __global__ void spin(int cycles) {
    if (threadIdx.x == 0) {  // the others hold their place, as threads that wait for a peer's bytes do
        long long end = clock64() + cycles;
        while (clock64() < end) { }
    }
    __syncthreads();
}
"""
CYCLES = 20_000_000  # of a calibration: some 10 ms
HOT_S, ROUNDS, PRODUCTS, SIDE = 1.0, 5, 20, 4096  # a GPU's clock falls when idle: products before and between spins
SLOTS = 4  # sums of one shape that may be in use at once: two on their way (Ladder), one being read, one spare


@dataclass(frozen=True)
class StreamHandle:
    """A sum on the side stream. `source` keeps the caller's tensor alive until the copy has been ordered."""

    buffer: Tensor
    source: Tensor
    arrived: torch.cuda.Event

    def wait(self) -> Tensor:
        """Make the current stream, not the host, wait."""
        torch.cuda.current_stream().wait_event(self.arrived)
        return self.buffer


class StreamCommunicator:
    """Runs `reduce(buffer)` on a side stream; buffers are allocated once per shape and owned by that stream.

    `collect(all, x)` puts every rank's x into all, (N, ...), on the same stream.
    """

    def __init__(
        self,
        world_size: int,
        reduce: Callable[[Tensor], None],
        collect: Callable[[Tensor, Tensor], None],
        device: torch.device,
        priority: int = 0,
    ) -> None:
        self.world_size = world_size
        self.reduce, self.collect = reduce, collect
        self.stream = torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]
        self._slots: dict[tuple[Any, ...], list[Tensor]] = {}
        self._turn: dict[tuple[Any, ...], int] = {}

    def start(self, x: Tensor) -> StreamHandle:
        buffer = self._next_buffer(x)
        self.stream.wait_stream(torch.cuda.current_stream())  # x is computed, and the buffer's last reader is done
        with torch.cuda.stream(self.stream):
            buffer.copy_(x)
            self.reduce(buffer)
            arrived = new_event(timing=not torch.cuda.is_current_stream_capturing())
            arrived.record()
        return StreamHandle(buffer, x, arrived)

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (N, ...)
        """On the side stream, behind the sums before it; the current stream, not the host, waits."""
        current, x = torch.cuda.current_stream(), x.contiguous()
        gathered = x.new_empty(self.world_size, *x.shape)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            self.collect(gathered, x)
        current.wait_stream(self.stream)
        return gathered

    def _next_buffer(self, x: Tensor) -> Tensor:
        key = (tuple(x.shape), x.dtype)
        if key not in self._slots:
            with torch.cuda.stream(self.stream):
                self._slots[key] = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(SLOTS)]
        self._turn[key] = (self._turn.get(key, -1) + 1) % SLOTS
        return self._slots[key][self._turn[key]]


def nccl_communicator(device: torch.device, priority: int = 0) -> StreamCommunicator:
    """Sums over the default process group's NCCL backend, on the side stream itself."""

    def reduce(buffer: Tensor) -> None:
        dist.all_reduce(buffer)

    def collect(gathered: Tensor, x: Tensor) -> None:
        dist.all_gather_into_tensor(gathered.view(-1), x.view(-1))

    return StreamCommunicator(dist.get_world_size(), reduce, collect, device, priority)


def modelled_communicator(
    world_size: int, seconds_of: Callable[[int], float], device: torch.device, priority: int = 0
) -> StreamCommunicator:
    """One GPU in place of `world_size`: a kernel that moves the same bytes, then one that spins.

    Both together take `seconds_of(bytes)`, and the second as many blocks as a real all-reduce. The values are wrong
    (nothing is summed); the time on the side stream is the link model's.
    """
    rate = spin_cycles_per_second(device)
    copy_seconds: dict[int, float] = {}

    def reduce(buffer: Tensor) -> None:
        size = buffer.numel() * buffer.element_size()
        if size not in copy_seconds:
            copy_seconds[size] = 0.0 if torch.cuda.is_current_stream_capturing() else _copy_seconds(buffer)
        buffer.mul_(1.0)  # reads and writes the same bytes
        left = seconds_of(size) - copy_seconds[size]
        if left > 0:
            _spin(int(left * rate))

    def collect(gathered: Tensor, x: Tensor) -> None:
        reduce(x)  # its time; the values stay
        gathered.copy_(x.expand_as(gathered))

    return StreamCommunicator(world_size, reduce, collect, device, priority)


def spin_cycles_per_second(device: torch.device) -> float:
    """The rate at which the spin kernel counts on a GPU at work: the median of some spins, each behind products."""
    with torch.cuda.device(device):
        x = torch.ones(SIDE, SIDE, device=device, dtype=torch.float16)
        _spin(CYCLES)  # compiled and loaded here, which a capture could not do
        end = time.monotonic() + HOT_S
        while time.monotonic() < end:
            _work(x)
            torch.cuda.synchronize(device)
        rates = []
        for _ in range(ROUNDS):
            _work(x)
            begin, done = new_event(), new_event()
            begin.record()
            _spin(CYCLES)
            done.record()
            rates.append(CYCLES / (milliseconds_between(begin, done) / 1e3))
        return statistics.median(rates)


def _work(x: Tensor) -> None:
    for _ in range(PRODUCTS):
        torch.mm(x, x)


@cache
def _kernel() -> Callable[..., None]:
    """The spin kernel, compiled for the GPU that is in use."""
    kernel: Callable[..., None] = torch.cuda._compile_kernel(SPIN, "spin")
    return kernel


def _spin(cycles: int) -> None:
    """A kernel on the current stream that holds its blocks for this many cycles of the device."""
    _kernel()(grid=(BLOCKS, 1, 1), block=(THREADS, 1, 1), args=[cycles])


def _copy_seconds(buffer: Tensor, repeats: int = 5) -> float:
    """How long one pass over `buffer` takes on the current stream."""
    begin, end = new_event(), new_event()
    buffer.mul_(1.0)
    begin.record()
    for _ in range(repeats):
        buffer.mul_(1.0)
    end.record()
    return milliseconds_between(begin, end) / 1e3 / repeats
