"""Time To First Token of a study's arms: measured over ranks, and projected for hardware that is not here.

At each size all arms meet in one cell: their rounds alternate with the baseline's, so that both saw the same machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.benchmark import launches, one_rank, ttft
from pipeline.benchmark.grid import Models
from pipeline.benchmark.progress import Say
from pipeline.communication.transport import transport_name
from pipeline.config import ModelConfig
from pipeline.config.benchmark import WIRES, BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.link import LinkConfig
from pipeline.errors import ConfigError
from pipeline.models.build import check_part
from pipeline.models.placement import tp_size_faults
from pipeline.projection.hardware import Hardware
from pipeline.projection.prefill import prefill
from pipeline.results.quality import Estimate
from pipeline.results.statistics import Floats, has_interval, median, summarise
from pipeline.results.trade import TimeKind, TradeSetting
from pipeline.study import arms

RESAMPLES = 2000
PROJECTED_RANKS = 4  # where every arm can be split over so many
PROJECTED_DTYPE = "float16"  # what the rates of hardware files are of


@dataclass(frozen=True)
class Times:
    """Milliseconds of one kind by size, then arm: the rounds of a cell, or the one number that is projected."""

    setting: TradeSetting
    rounds: dict[str, dict[str, list[float]]]

    @property
    def is_exact(self) -> bool:
        """Whether the same question has the same answer every time: a projection does not scatter."""
        return self.setting.kind == "projected"

    @property
    def have_intervals(self) -> bool:
        """Whether how sure these times are is known: a projection is wrong rather than unsure, rounds must be many."""
        return self.is_exact or all(has_interval([one]) for cell in self.rounds.values() for one in cell.values())

    def median_ms(self, arm: str, size: str) -> float:
        return median([self.rounds[size][arm]])

    def estimate(self, arm: str, size: str) -> Estimate:
        """The median and its 95% interval over rounds; no interval of a projection."""
        found = summarise([self.rounds[size][arm]])
        return Estimate(value=found.median, low=found.low, high=found.high)

    def resampled_ms(self, arm: str, size: str) -> Floats:
        """(RESAMPLES,) medians; arms of the same size are resampled in pairs, as their rounds alternated."""
        rounds = np.asarray(self.rounds[size][arm])
        drawn = np.random.default_rng(list(self.rounds).index(size)).integers(0, len(rounds), (RESAMPLES, len(rounds)))
        medians: Floats = np.median(rounds[drawn], axis=1)
        return medians


@dataclass(frozen=True)
class Timing:
    """What is timed: a benchmark's protocol at one prompt and number of ranks, and the arms by size."""

    benchmark: BenchmarkConfig
    grid: dict[int, list[Models]]  # one entry

    @property
    def tp_size(self) -> int:
        (tp_size,) = self.grid
        return tp_size

    @property
    def context(self) -> int:
        return self.benchmark.contexts[0]

    @property
    def is_one_rank(self) -> bool:
        return self.benchmark.protocol == "one_rank"

    def check(self, link: LinkConfig, cluster: ClusterConfig) -> None:
        """Raises ConfigError for what arms cannot be timed with, MissingRequirementError for what is not here."""
        if self.is_one_rank:
            one_rank.check(self.benchmark, cluster, self.grid)
            return
        if len(link.links) > 1:
            raise ConfigError(f"link.links={link.links}: arms are weighed over one link; link=loopback would be right")
        ttft.check(self.benchmark, link, cluster, self.grid)

    def measure(self, link: LinkConfig, cluster: ClusterConfig, hardware: Hardware, say: Say) -> Times:
        """Time all arms, random weights; of one rank alone the communication is `hardware`'s, modelled.

        Raises RunError where a rank dies or hangs.
        """
        if self.is_one_rank:
            modelled = hardware.all_reduce_seconds
            found = one_rank.measure(self.benchmark, cluster, self.grid, modelled, hardware.name, say)
        else:
            found, *_ = launches.measure_grid(self.benchmark, link, cluster, self.grid, {}, say)
        rounds = {
            one.models.size: {arm: list(one.samples_ms(f"{arm}/overlapped")[0]) for arm in one.models.by_architecture}
            for one in found
        }
        kind: TimeKind = "measured compute, modelled communication" if self.is_one_rank else "measured"
        return Times(self._setting(kind, self.tp_size, self._where(found[0])), rounds)

    def project(self, hardware: Hardware) -> Times:
        """Every arm's time on `hardware`, over PROJECTED_RANKS where all can be split so, else over as many as here."""
        (groups,) = self.grid.values()
        every = [model for models in groups for model in models.by_architecture.values()]
        tp_size = PROJECTED_RANKS if not _faults(every, PROJECTED_RANKS) else self.tp_size

        def milliseconds(model: ModelConfig) -> float:
            return prefill(model, hardware, self.context, tp_size, dtype=PROJECTED_DTYPE).timeline.seconds * 1e3

        rounds = {
            models.size: {arm: [milliseconds(model)] for arm, model in models.by_architecture.items()}
            for models in groups
        }
        where = f"{tp_size} × {hardware.name} in {PROJECTED_DTYPE}"
        return Times(self._setting("projected", tp_size, where), rounds)

    def _where(self, measured: ttft.Measured) -> str:
        shares, dtype = measured.resources, self.benchmark.dtype
        if self.is_one_rank:
            return f"one of {self.tp_size} ranks on {shares.device} in {dtype}, link {measured.link}"
        transport = transport_name(self.benchmark.transport, shares.device, self.tp_size)
        crowded = "; ranks exceed cores and take turns, so times show order, not overlap" * shares.oversubscribed
        return f"{self.tp_size} ranks on {shares.device} in {dtype} over {measured.link} ({transport}){crowded}"

    def _setting(self, kind: TimeKind, tp_size: int, where: str) -> TradeSetting:
        return TradeSetting(kind=kind, where=where, tp_size=tp_size, context=self.context, batch_size=1)


def plan(models: arms.Models, baseline: str, benchmark: BenchmarkConfig, cluster: ClusterConfig) -> Timing:
    """How the arms are timed: one prompt as long as they were trained on, over `choose_ranks`.

    Raises ConfigError where no number of ranks will do, and for built engines, which arms do not have.
    """
    if benchmark.engine != "torch":
        raise ConfigError(
            f"benchmark.engine={benchmark.engine}: arms are timed as torch runs them; torch would be right"
        )
    tp_size = choose_ranks(list(models.values()), benchmark, cluster)
    for model in models.values():
        check_part(model, tp_size)
    cut = benchmark.model_copy(
        update={
            "contexts": [min(model.block_size for model in models.values())],
            "batch_sizes": [1],
            "tp_sizes": [tp_size],
            "weights": "random",
            "contexts_by_link": {},
            "decode_tokens": 0,
            "concurrencies": [],
            "wires": [*WIRES[:1]],
            "wire_errors": None,
            "headline_links": [],
            "headline_contexts": [],
            "launches": 1,  # whose rounds are resampled
            **dict.fromkeys(("breakdown", "trace", "no_communication_bound", "surface"), False),
        }
    )
    sizes = dict.fromkeys(size for _, size in models)
    groups = []
    for size in sizes:
        here = {arm: model for (arm, its), model in models.items() if its == size}
        groups.append(Models(size, tp_size, {baseline: here[baseline]} | here, frozenset()))
    return Timing(cut, {tp_size: groups})


def choose_ranks(models: Sequence[ModelConfig], benchmark: BenchmarkConfig, cluster: ClusterConfig) -> int:
    """The most ranks, up to the benchmark's most, that every model can be split over and that have cores or GPUs here.

    Where there are none, the fewest. Raises ConfigError where not even two ranks can share every model.
    """
    most = max(benchmark.tp_sizes)
    shared = [n for n in range(most, 1, -1) if not _faults(models, n)]
    if not shared:
        why = f": {_faults(models, 2)[0]}" if most > 1 else ""
        raise ConfigError(
            f"benchmark.tp_sizes={benchmark.tp_sizes}: no number of ranks from 2 to {max(2, most)} holds all arms{why}"
        )
    return next((n for n in shared if benchmark.protocol == "one_rank" or _has_room(cluster, n)), shared[-1])


def _faults(models: Sequence[ModelConfig], tp_size: int) -> list[str]:
    return [fault for model in models for fault in tp_size_faults(model, tp_size, "tp_size")]


def _has_room(cluster: ClusterConfig, tp_size: int) -> bool:
    if cluster.device == "cuda":
        import torch

        return torch.cuda.device_count() >= tp_size
    return not ttft.resources(cluster, tp_size).oversubscribed
