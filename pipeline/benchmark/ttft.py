"""The whole measurement: one launch of ranks per number of ranks and kind of link, then every cell of the grid."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pipeline.benchmark.grid import Cell, Models, cells, decode_cells
from pipeline.benchmark.progress import Progress, Say
from pipeline.benchmark.protocol import Rules
from pipeline.benchmark.ranks.launcher import RankGroup, ended_in_order
from pipeline.benchmark.ranks.links import check_privilege, launches, make_links
from pipeline.benchmark.ranks.memory import free_bytes, rank_bytes, too_little
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.link import LOOPBACK, LinkConfig, bits_per_second
from pipeline.errors import MissingRequirementError, RunError

LINK_PROBE_S = 0.2  # seconds that the probe of a link's speed fills
RANKS_PER_CORE = 16  # beyond this, ranks on CPU time nothing but the scheduler
INSTRUMENTED = 5  # forwards with a stopwatch at every part, at most
INSTRUMENTED_S = 12  # fewer where that many rounds took longer; one at least
DECODE_ROUNDS = 3
SEED = 1337


@dataclass(frozen=True)
class Resources:
    """What each rank of a launch may use."""

    device: str
    threads: int
    cores: list[list[int]]
    oversubscribed: bool
    shared_weights: bool = False  # architectures take turns in the same memory


@dataclass
class Measured:
    """One cell: every architecture of one size at one prompt, number of ranks and link."""

    models: Models
    cell: Cell
    link: str
    link_bits_per_s: float | None
    resources: Resources
    result: dict[str, Any]  # rounds by variant, and details by architecture, as RankWorker.measure gives them
    instrumented: list[dict[str, Any]] = field(default_factory=list)  # by rank
    is_modelled: bool = False  # one rank ran alone, and a link model stood in for the others


@dataclass
class Decoded:
    """Milliseconds per step by architecture and round."""

    models: Models
    cell: Cell
    link: str
    resources: Resources
    rounds: dict[str, list[list[float]]]


def rules_of(benchmark: BenchmarkConfig) -> Rules:
    """The fields of a benchmark that say when to start counting and when to stop."""
    return Rules(**{rule.name: getattr(benchmark, rule.name) for rule in fields(Rules)})


def resources(cluster: ClusterConfig, tp_size: int) -> Resources:
    """Threads and cores of each rank: all cores shared evenly, one thread at least."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    threads = cluster.threads_per_rank or max(1, len(usable) // tp_size)
    enough = threads * tp_size <= len(usable)
    cores = []
    if cluster.pin_cores and enough and hasattr(os, "sched_setaffinity"):
        cores = [usable[rank * threads : (rank + 1) * threads] for rank in range(tp_size)]
    return Resources(cluster.device, threads, cores, cluster.device == "cpu" and not enough)


def check(
    benchmark: BenchmarkConfig, link: LinkConfig, cluster: ClusterConfig, grid: Mapping[int, list[Models]]
) -> None:
    """Everything that would fail later: privilege, devices, memory. Raises MissingRequirementError."""
    check_privilege(link.links)
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


def measure_grid(
    benchmark: BenchmarkConfig,
    link: LinkConfig,
    cluster: ClusterConfig,
    grid: Mapping[int, list[Models]],
    folders: Mapping[str, Path],
    say: Say,
) -> tuple[list[Measured], list[Decoded]]:
    """Time the grid; `folders` holds trained models by name, random weights where there is none.

    Raises RunError where a rank dies or hangs; nothing is left running then, nor any namespace.
    """
    measured: list[Measured] = []
    decoded: list[Decoded] = []
    prompts = len(cells(benchmark)) + len(decode_cells(benchmark))
    progress = Progress(say, sum(len(sizes) for sizes in grid.values()) * len(link.links) * prompts)
    with ended_in_order(), tempfile.TemporaryDirectory(prefix="ttft-") as scratch:
        for tp_size, sizes in grid.items():
            for index, group in enumerate(launches(link.links)):
                launch = _Launch(benchmark, cluster, tp_size, sizes, group, folders, progress)
                launch.run(Path(scratch, f"store-{tp_size}-{index}"), measured, decoded)
    return measured, decoded


@dataclass(frozen=True)
class _Launch:
    """One set of rank processes and all they are asked."""

    benchmark: BenchmarkConfig
    cluster: ClusterConfig
    tp_size: int
    sizes: list[Models]
    links: list[str]
    folders: Mapping[str, Path]
    progress: Progress

    def run(self, store: Path, measured: list[Measured], decoded: list[Decoded]) -> None:
        shares = resources(self.cluster, self.tp_size)
        timeout = self.benchmark.rank_timeout_s
        with make_links(self.links, self.tp_size) as joined:
            spec = RankSpec(
                tp_size=self.tp_size,
                store=str(store),
                device=shares.device,
                dtype=self.benchmark.dtype,
                threads=shares.threads,
                cores=shares.cores,
                transport=self.benchmark.transport,
                interfaces=joined.interfaces,
                timeout_s=timeout + 60,  # the launcher notices first, and says who
                seed=SEED,
                cuda_graph=self.benchmark.cuda_graph,
            )
            self.progress.say(f"starting {self.tp_size} ranks ({', '.join(self.links)})")
            with RankGroup(spec, joined, timeout) as ranks:
                for models in self.sizes:
                    shares = replace(shares, shared_weights=self._load(ranks, models))
                    for link in self.links:
                        joined.set_link(link)
                        speed = self._probe(ranks, link)
                        measured.extend(
                            self._measure(ranks, models, cell, link, speed, shares) for cell in cells(self.benchmark)
                        )
                        decoded.extend(
                            self._decode(ranks, models, cell, link, shares) for cell in decode_cells(self.benchmark)
                        )

    def _load(self, ranks: RankGroup, models: Models) -> bool:
        """Returns whether the architectures share their memory."""
        raw = {name: model.model_dump(mode="json") for name, model in models.by_architecture.items()}
        folders = {
            architecture: str(self.folders[models.weights_of(architecture)])
            for architecture in models.by_architecture
            if models.weights_of(architecture) in self.folders
        }
        shared = shares_weights(self.benchmark, models, self.tp_size, self.cluster.device)
        ranks.command("load", models=raw, folders=folders, shared=shared)
        return shared

    def _probe(self, ranks: RankGroup, link: str) -> float:
        """Bits per second that the link carries right now."""
        if self.tp_size == 1:
            return 0.0
        rate = bits_per_second(link) or 1e9
        payload = int(min(64e6, max(1e6, rate * LINK_PROBE_S / 8))) // 4 * 4
        return float(ranks.command("link", payload_bytes=payload, repeats=2)[0])

    def _measure(
        self, ranks: RankGroup, models: Models, cell: Cell, link: str, speed: float, shares: Resources
    ) -> Measured:
        where = {"context": cell.context, "batch_size": cell.batch_size}
        answers = ranks.command("measure", **where, rules=asdict(rules_of(self.benchmark)))
        details = [answer["details"] for answer in answers]
        result = answers[0] | {"details": {name: _over_ranks([one[name] for one in details]) for name in details[0]}}
        _check_agreement(result["details"], self.tp_size)
        measured = Measured(models, cell, link, speed, shares, result)
        rounds = len(next(iter(result["samples_ms"].values())))
        if self.benchmark.breakdown or self.benchmark.trace:
            round_s = result["seconds"] / (rounds + result["warmup_rounds"])
            repeats = max(1, min(INSTRUMENTED, int(INSTRUMENTED_S / round_s)))
            measured.instrumented = ranks.command("instrument", **where, repeats=repeats)
        self.progress.finished(
            f"{models.size} T={cell.context} B={cell.batch_size} TP {self.tp_size} {link}: "
            f"{rounds} rounds in {result['seconds']:.0f} s"
        )
        return measured

    def _decode(self, ranks: RankGroup, models: Models, cell: Cell, link: str, shares: Resources) -> Decoded:
        rounds = ranks.command(
            "decode",
            context=cell.context,
            batch_size=cell.batch_size,
            new_tokens=self.benchmark.decode_tokens,
            repeats=DECODE_ROUNDS,
        )[0]
        self.progress.finished(f"{models.size} T={cell.context} B={cell.batch_size} TP {self.tp_size} {link}: decoded")
        return Decoded(models, cell, link, shares, rounds)


def _check_agreement(details: Mapping[str, Mapping[str, Any]], tp_size: int) -> None:
    """Raise RunError where ranks of one model sampled different tokens: its time would be that of something wrong."""
    odd = [name for name, facts in details.items() if not facts["ranks_agree"]]
    if odd:
        raise RunError(
            f"{', '.join(odd)}: the {tp_size} ranks sampled different tokens; what they run is not the model"
        )


def _over_ranks(details: list[dict[str, Any]]) -> dict[str, Any]:
    """One forward's facts over all ranks: the most memory any rank took; the rest is the same everywhere."""
    return details[0] | {"peak_memory_bytes": max(one["peak_memory_bytes"] for one in details)}
