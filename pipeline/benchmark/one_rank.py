"""One rank's share of every shape on one device; the other ranks are a link model.

Measured: the compute of rank 0, as it runs on any of the ranks. Stated: the communication, either left out (a), or
as a kernel of the same bytes whose duration the link model gives, on the stream a real collective would use (b).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from pipeline.benchmark.grid import Cell, Models, cells
from pipeline.benchmark.progress import Progress, Say
from pipeline.benchmark.protocol import Rounds, run_rounds
from pipeline.benchmark.ranks.memory import reset_peak, resident_bytes, weight_bytes
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.benchmark.ttft import SEED, Measured, resources, rules_of, shares_weights
from pipeline.communication import CountingCommunicator, SkippedCommunicator
from pipeline.communication.communicator import Communicator
from pipeline.communication.modelled import ModelledCommunicator
from pipeline.communication.stream import modelled_communicator
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.engines.arena import arena_size, build_on_arena, make_arena
from pipeline.engines.torch import TorchEngine
from pipeline.errors import MissingRequirementError
from pipeline.models import Placement
from pipeline.results.ttft import BASELINE

AllReduceSeconds = Callable[[float, int], float]  # bytes per rank, ranks


def check(benchmark: BenchmarkConfig, cluster: ClusterConfig, grid: Mapping[int, list[Models]]) -> None:
    """Raise MissingRequirementError without the device, or where one architecture's share does not fit."""
    if cluster.device == "cuda" and not torch.cuda.is_available():
        raise MissingRequirementError("benchmark=ttft_one_rank on cluster.device=cuda: no CUDA GPU is here")
    for sizes in grid.values():
        for models in sizes:
            shares_weights(benchmark, models, 1, cluster.device)


def measure(
    benchmark: BenchmarkConfig,
    cluster: ClusterConfig,
    grid: Mapping[int, list[Models]],
    all_reduce_seconds: AllReduceSeconds,
    link: str,
    say: Say,
) -> list[Measured]:
    """The whole grid; all architectures and both treatments of the collectives alternate."""
    device = torch.device("cuda", 0) if cluster.device == "cuda" else torch.device("cpu")
    measured: list[Measured] = []
    progress = Progress(say, sum(len(sizes) for sizes in grid.values()) * len(cells(benchmark)))
    for tp_size, sizes in grid.items():
        for models in sizes:
            bench = _Bench(benchmark, cluster, models, device, all_reduce_seconds, link)
            for cell in cells(benchmark):
                measured.append(bench.measure(cell))
                progress.finished(f"{models.size} T={cell.context} B={cell.batch_size}, one rank of {tp_size}")
            bench.clear()
    return measured


class _Bench:
    """The engines of one size and number of ranks."""

    def __init__(
        self,
        benchmark: BenchmarkConfig,
        cluster: ClusterConfig,
        models: Models,
        device: torch.device,
        all_reduce_seconds: AllReduceSeconds,
        link: str,
    ) -> None:
        self.benchmark, self.models, self.device, self.link = benchmark, models, device, f"modelled {link}"
        shared = shares_weights(benchmark, models, 1, device.type)
        self.shares = replace(resources(cluster, 1), shared_weights=shared)
        torch.set_num_threads(self.shares.threads)
        self.dtype: torch.dtype = getattr(torch, benchmark.dtype)
        tp_size = models.tp_size

        def seconds_of(size: int) -> float:
            return all_reduce_seconds(float(size), tp_size)

        self.communicators: dict[str, Communicator] = {
            "skipped": SkippedCommunicator(tp_size),
            "overlapped": modelled_communicator(tp_size, seconds_of, device)
            if device.type == "cuda"
            else ModelledCommunicator(tp_size, seconds_of),
        }
        self.engines = self._build()

    def measure(self, cell: Cell) -> Measured:
        """Both treatments of the collectives for every architecture, at one prompt."""
        names = list(self.models.by_architecture)
        result = asdict(self._rounds(names, cell)) | {"details": {name: self._details(name, cell) for name in names}}
        return Measured(self.models, cell, self.link, None, self.shares, result, is_modelled=True)

    def clear(self) -> None:
        """Give the memory back before the next size."""
        self.engines.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _build(self) -> dict[str, TorchEngine]:
        placement = Placement(0, self.models.tp_size)
        configs = self.models.by_architecture
        if not self.shares.shared_weights:
            return {
                name: TorchEngine.build(config, placement, seed=SEED, device=self.device, dtype=self.dtype)
                for name, config in configs.items()
            }
        elements = max(arena_size(config, placement) for config in configs.values())
        arena = make_arena(elements, configs[BASELINE].init_std, SEED, self.device, self.dtype)
        return {name: TorchEngine(build_on_arena(config, placement, arena)) for name, config in configs.items()}

    def _rounds(self, names: list[str], cell: Cell) -> Rounds:
        tokens = self._tokens(cell)

        def timed(key: str) -> tuple[float, float]:
            name, mode = key.split("/")
            engine = self.engines[name]
            engine.communicator = self.communicators[mode]
            if self.device.type == "cuda" and self.benchmark.cuda_graph:
                engine.capture(tokens, mode)
            taken = lap(lambda: engine.prefill(tokens), self.device)
            return taken.host_ms, taken.device_ms

        keys = [f"{name}/{mode}" for name in names for mode in self.communicators]
        measured = run_rounds(keys, timed, lambda values: values, rules_of(self.benchmark))
        for name in names:
            self.engines[name].release_graphs()
        return measured

    def _details(self, name: str, cell: Cell) -> dict[str, Any]:
        engine = self.engines[name]
        counting = CountingCommunicator(self.communicators["skipped"])
        engine.communicator = counting
        before = reset_peak(self.device)
        engine.prefill(self._tokens(cell))
        growth = max(0, resident_bytes(self.device, peak=True) - before)
        weights = weight_bytes(
            self.models.by_architecture[name], Placement(0, self.models.tp_size), self.benchmark.dtype
        )
        return {
            "collectives": counting.collectives,
            "bytes": counting.bytes,
            "peak_memory_bytes": weights + growth,
        }

    def _tokens(self, cell: Cell) -> torch.Tensor:
        vocabulary = min(model.vocab_size for model in self.models.by_architecture.values())
        generator = torch.Generator().manual_seed(SEED)
        return torch.randint(0, vocabulary, (cell.batch_size, cell.context), generator=generator).to(self.device)
