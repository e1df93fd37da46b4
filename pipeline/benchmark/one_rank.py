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
from pipeline.benchmark.protocol import Rules
from pipeline.benchmark.ranks.bench import Bench
from pipeline.benchmark.ranks.spec import Mode, Variant
from pipeline.benchmark.ttft import SEED, Measured, joined, resources, rules_of, shares_weights
from pipeline.communication import Communicator, SkippedCommunicator
from pipeline.communication.modelled import ModelledCommunicator
from pipeline.communication.stream import modelled_communicator
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.errors import ConfigError, MissingRequirementError
from pipeline.models import Placement

AllReduceSeconds = Callable[[float, int], float]  # bytes per rank, ranks


def check(benchmark: BenchmarkConfig, cluster: ClusterConfig, grid: Mapping[int, list[Models]]) -> None:
    """Raise ConfigError for trained weights, MissingRequirementError without the device or the memory for a share."""
    if benchmark.weights != "random":
        raise ConfigError(f"benchmark.weights={benchmark.weights}: one rank alone is timed with random weights only")
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
    measured: list[Measured] = []
    rules = replace(rules_of(benchmark), diagnostics_every=1)  # compute alone is a row here
    progress = Progress(say, sum(len(sizes) for sizes in grid.values()) * len(cells(benchmark)))
    for tp_size, sizes in grid.items():
        for models in sizes:
            shared = shares_weights(benchmark, models, 1, cluster.device)
            shares = replace(resources(cluster, 1), shared_weights=shared)
            torch.set_num_threads(shares.threads)
            device = torch.device("cuda", 0) if cluster.device == "cuda" else torch.device("cpu")
            modes = _modes(device, tp_size, all_reduce_seconds)
            bench = Bench(Placement(0, tp_size), device, benchmark.dtype, SEED, benchmark.cuda_graph, modes)
            bench.build(models.by_architecture, {}, shared)
            for cell in cells(benchmark):
                result = _measure(bench, cell, rules)
                measured.append(Measured(models, cell, f"modelled {link}", None, shares, result, is_modelled=True))
                progress.finished(f"{models.size} T={cell.context} B={cell.batch_size}, one rank of {tp_size}")
            bench.engines.clear()  # the memory back before the next size
            torch.cuda.empty_cache()
    return measured


def _modes(device: torch.device, tp_size: int, all_reduce_seconds: AllReduceSeconds) -> dict[Mode, Communicator]:
    """Collectives left out, and as kernels or pauses of the duration that the link model gives."""

    def seconds_of(size: int) -> float:
        return all_reduce_seconds(float(size), tp_size)

    modelled: Communicator = ModelledCommunicator(tp_size, seconds_of)
    if device.type == "cuda":
        modelled = modelled_communicator(tp_size, seconds_of, device)
    return {"skipped": SkippedCommunicator(tp_size), "overlapped": modelled}


def _measure(bench: Bench, cell: Cell, rules: Rules) -> dict[str, Any]:
    """Both treatments of the collectives for every architecture, at one prompt."""
    tokens = bench.tokens(cell.context, cell.batch_size)
    variants = [Variant(name, mode) for name in bench.engines for mode in bench.modes]
    rounds = bench.rounds(variants, tokens, lambda values: values, rules)
    details = {name: bench.details(Variant(name, "skipped"), tokens)[0] for name in bench.engines}
    return joined([asdict(rounds) | {"details": details}])
