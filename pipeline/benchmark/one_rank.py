"""One rank's share of every shape on one device; the other ranks are a link model.

Measured: the compute of rank 0, as it runs on any of the ranks. Stated: the communication, either left out (a), or
as a kernel of the same bytes whose duration the link model gives, on the stream a real collective would use (b).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from pipeline.benchmark.grid import Cell, Models, cells
from pipeline.benchmark.progress import Progress, Say
from pipeline.benchmark.protocol import Rounds, run_rounds, summarise
from pipeline.benchmark.ranks.memory import reset_peak, resident_bytes, weight_bytes
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.benchmark.rows import comparability, speed_columns
from pipeline.benchmark.ttft import SEED, Resources, resources, rules_of, shares_weights
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

AllReduceSeconds = Callable[[float, int], float]  # bytes per rank, ranks
NOTHING = "none"
KINDS = {
    NOTHING: "measured",  # compute alone
    "modelled": "measured compute, modelled communication",
}


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
) -> list[dict[str, Any]]:
    """Rows of the whole grid; all architectures and both treatments of the collectives alternate."""
    device = torch.device("cuda", 0) if cluster.device == "cuda" else torch.device("cpu")
    rows = []
    progress = Progress(say, sum(len(sizes) for sizes in grid.values()) * len(cells(benchmark)))
    for tp_size, sizes in grid.items():
        for models in sizes:
            bench = _Bench(benchmark, cluster, models, device, all_reduce_seconds, link)
            for cell in cells(benchmark):
                rows += bench.rows(cell)
                progress.finished(f"{models.size} T={cell.context} B={cell.batch_size}, one rank of {tp_size}")
            bench.clear()
    return rows


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
        self.benchmark, self.models, self.device, self.link = benchmark, models, device, link
        self.shares: Resources = resources(cluster, 1)
        torch.set_num_threads(self.shares.threads)
        self.dtype: torch.dtype = getattr(torch, benchmark.dtype)
        tp_size = models.tp_size

        def seconds_of(size: int) -> float:
            return all_reduce_seconds(float(size), tp_size)

        self.communicators: dict[str, Communicator] = {
            NOTHING: SkippedCommunicator(tp_size),
            "modelled": modelled_communicator(tp_size, seconds_of, device)
            if device.type == "cuda"
            else ModelledCommunicator(tp_size, seconds_of),
        }
        self.shared = shares_weights(benchmark, models, 1, device.type)
        self.engines = self._build()

    def rows(self, cell: Cell) -> list[dict[str, Any]]:
        """Both treatments of the collectives for every architecture, at one prompt."""
        names = list(self.models.by_architecture)
        measured = self._measure(names, cell)
        facts = {name: self._facts(name, cell) for name in names}
        return [self._row(name, mode, cell, measured, facts[name]) for mode in self.communicators for name in names]

    def clear(self) -> None:
        """Give the memory back before the next size."""
        self.engines.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _build(self) -> dict[str, TorchEngine]:
        placement = Placement(0, self.models.tp_size)
        configs = self.models.by_architecture
        if not self.shared:
            return {
                name: TorchEngine.build(config, placement, seed=SEED, device=self.device, dtype=self.dtype)
                for name, config in configs.items()
            }
        elements = max(arena_size(config, placement) for config in configs.values())
        arena = make_arena(elements, configs["standard"].init_std, SEED, self.device, self.dtype)
        return {name: TorchEngine(build_on_arena(config, placement, arena)) for name, config in configs.items()}

    def _measure(self, names: list[str], cell: Cell) -> Rounds:
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

    def _facts(self, name: str, cell: Cell) -> dict[str, Any]:
        engine = self.engines[name]
        counting = CountingCommunicator(self.communicators[NOTHING])
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

    def _row(
        self,
        name: str,
        mode: str,
        cell: Cell,
        rounds: Rounds,
        facts: dict[str, Any],
    ) -> dict[str, Any]:
        key, samples = f"{name}/{mode}", rounds.samples_ms
        model = self.models.by_architecture[name]
        on_device = self.device.type == "cuda"
        return {
            "kind": KINDS[mode],
            "architecture": name,
            "model": model.name,
            "size": self.models.size,
            "context": cell.context,
            "batch_size": cell.batch_size,
            "tp_size": self.models.tp_size,
            "n_layer": model.n_layer,
            "engine": "torch",
            "device": self.device.type,
            "dtype": self.benchmark.dtype,
            "transport": "modelled",
            "link": NOTHING if mode == NOTHING else f"modelled {self.link}",
            "ranks_measured": 1,
            "cuda_graph": on_device and self.benchmark.cuda_graph,
            "shared_weights": self.shared,
            "oversubscribed": False,
            "threads_per_rank": self.shares.threads,
            "weights": "random",
            "comparability": f"one rank's share, {KINDS[mode]}; {comparability(self.models, name, self.shares)}",
            **speed_columns(
                samples[key],
                standard=samples[f"standard/{mode}"],
                bound=samples[f"standard/{NOTHING}"],
                compute=samples[f"{name}/{NOTHING}"],
            ),
            "device_ms_median": summarise(rounds.device_ms[key]).median if on_device else None,
            "warmup_rounds": rounds.warmup_rounds,
            **facts,
        }
