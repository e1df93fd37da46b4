"""What a measurement is given and what it gives: resources of ranks, checks before any work, cells measured."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline.benchmark.grid import Cell, Models
from pipeline.benchmark.idle import UNKNOWN, Usage
from pipeline.benchmark.protocol import Rules
from pipeline.benchmark.ranks.links import check_privilege
from pipeline.benchmark.ranks.memory import free_bytes, rank_bytes, too_little
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.link import LOOPBACK, LinkConfig
from pipeline.errors import MissingRequirementError
from pipeline.results.cell import Launches

RANKS_PER_CORE = 16  # beyond this, ranks on CPU time nothing but the scheduler
SEED = 1337
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, Linux


@dataclass(frozen=True)
class Resources:
    """What each rank of a launch may use."""

    device: str
    threads: int
    cores: list[list[int]]
    oversubscribed: bool
    shared_weights: bool = False  # architectures take turns in the same memory
    used_cores: int = 1  # by all ranks together
    cores_here: int = 1  # of the machine


@dataclass
class Measured:
    """One cell: every architecture of one size at one prompt, number of ranks and link."""

    models: Models
    cell: Cell
    link: str
    link_bits_per_s: float | None
    resources: Resources
    result: dict[str, Any]  # of all launches, as `joined` gives it
    instrumented: list[dict[str, Any]] = field(default_factory=list)  # by rank
    is_modelled: bool = False  # one rank ran alone, and a link model stood in for the others
    usage: Usage = UNKNOWN  # of the machine, the worst launch
    matrix_flops_per_s: float | None = None
    energy_joules: dict[str, float] = field(default_factory=dict)  # of one prefill, by architecture; where counted

    def samples_ms(self, variant: str) -> Launches:
        """Rounds of a variant such as kraken/overlapped; raises KeyError for one that was not timed."""
        found: Launches = self.result["samples_ms"][variant]
        return found


@dataclass
class Decoded:
    """Milliseconds per step by architecture, launch and round."""

    models: Models
    cell: Cell
    link: str
    resources: Resources
    rounds: dict[str, list[list[list[float]]]]
    usage: Usage = UNKNOWN


@dataclass
class Served:
    """What clients waited by architecture and launch, as `serving.serve` answers."""

    models: Models
    cell: Cell
    link: str
    resources: Resources
    answers: dict[str, list[dict[str, Any]]]
    usage: Usage = UNKNOWN

    def is_beside(self, other: "Served") -> bool:
        """Whether all but the number of clients is the same."""
        where = [(one.models.size, one.models.tp_size, one.cell.context, one.link) for one in (self, other)]
        return where[0] == where[1]


def joined(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the launches answered, as one: samples_ms and device_ms by variant, one inner list a launch.

    Rounds thrown away are summed, `stopped_by` is what ended most launches, the latest of equals; all else is the
    first launch's.
    """
    ends = Counter(reversed([answer.get("stopped_by") for answer in answers]))  # equals: the first met, so the latest
    return answers[0] | {
        **{
            kind: {key: [answer[kind][key] for answer in answers] for key in answers[0][kind]}
            for kind in ("samples_ms", "device_ms")
        },
        "warmup_rounds": sum(answer["warmup_rounds"] for answer in answers),
        "stopped_by": ends.most_common(1)[0][0],
    }


def rules_of(benchmark: BenchmarkConfig) -> Rules:
    """The fields of a benchmark that say when to start counting and when to stop."""
    return Rules(**{rule.name: getattr(benchmark, rule.name) for rule in fields(Rules)})


def resources(cluster: ClusterConfig, tp_size: int) -> Resources:
    """Threads and cores of each rank: all cores shared evenly, as many as a quota of CPU time allows, one at least."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    usable = usable[: _quota()]
    threads = cluster.threads_per_rank or max(1, len(usable) // tp_size)
    enough = threads * tp_size <= len(usable)
    cores = []
    if cluster.pin_cores and enough and hasattr(os, "sched_setaffinity"):
        cores = [usable[rank * threads : (rank + 1) * threads] for rank in range(tp_size)]
    crowded = cluster.device == "cpu" and not enough
    used = min(len(usable), threads * tp_size)
    return Resources(cluster.device, threads, cores, crowded, used_cores=used, cores_here=os.cpu_count() or 1)


def rank_spec(
    benchmark: BenchmarkConfig, cluster: ClusterConfig, tp_size: int, store: Path, interfaces: list[str]
) -> RankSpec:
    """What ranks of a launch are told; they find each other through the file `store`."""
    shares = resources(cluster, tp_size)
    return RankSpec(
        tp_size=tp_size,
        store=str(store),
        device=shares.device,
        dtype=benchmark.dtype,
        threads=shares.threads,
        cores=shares.cores,
        transport=benchmark.transport,
        interfaces=interfaces,
        timeout_s=benchmark.rank_timeout_s + 60,  # the launcher notices first, and says who
        seed=SEED,
        cuda_graph=benchmark.cuda_graph,
    )


def _quota() -> int | None:
    """Whole cores' worth of CPU time that this container may use, one at least; None where nothing says."""
    try:
        allowed, period = CPU_QUOTA.read_text().split()  # microseconds, or max
        return None if allowed == "max" else max(1, int(allowed) // int(period))
    except (OSError, ValueError):
        return None


def check(
    benchmark: BenchmarkConfig, link: LinkConfig, cluster: ClusterConfig, grid: Mapping[int, list[Models]]
) -> None:
    """Everything that would fail later: privilege, devices, memory. Raises MissingRequirementError."""
    check_privilege(link.links)
    if cluster.device == "cuda" and len(benchmark.wires) > 1:
        raise MissingRequirementError(
            f"benchmark.wires={benchmark.wires}: GPUs' sums travel as they are; other wires are for cluster=local_cpu, "
            "or set benchmark.wires=[float32]"
        )
    for tp_size, sizes in grid.items():
        _check_ranks(tp_size, cluster)
        if cluster.device == "cuda" and link.links != [LOOPBACK]:
            raise MissingRequirementError(
                f"link.links={link.links}: GPUs talk over their own links; shaped links are for cluster=local_cpu"
            )
        for models in sizes:
            shares_weights(benchmark, models, tp_size, cluster.device)


def shares_weights(benchmark: BenchmarkConfig, models: Models, n_ranks: int, device: str) -> bool:
    """Whether the architectures must take turns in the same memory; MissingRequirementError where not even that fits.

    `n_ranks` of them run here at a time. Only random weights can be shared.
    """
    free = free_bytes(n_ranks, device)
    needed = 0
    for shared in (False, True) if benchmark.weights == "random" else (False,):
        needed = rank_bytes(benchmark, models, device, shared)
        if needed <= free:
            return shared
    raise too_little(models, needed, free)


def _check_ranks(tp_size: int, cluster: ClusterConfig) -> None:
    if cluster.device == "cuda":
        import torch

        if torch.cuda.device_count() < tp_size:
            raise MissingRequirementError(
                f"benchmark.tp_sizes={tp_size}: {tp_size} CUDA GPUs are needed, {torch.cuda.device_count()} are here; "
                "run on a node that has them, lower benchmark.tp_sizes, or time one rank's share with "
                "benchmark=ttft_one_rank"
            )
        return
    cores = os.cpu_count() or 1
    if tp_size > RANKS_PER_CORE * cores:
        raise MissingRequirementError(
            f"benchmark.tp_sizes={tp_size}: {cores} cores can host at most {RANKS_PER_CORE * cores} ranks"
        )
