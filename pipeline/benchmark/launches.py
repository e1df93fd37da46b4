"""The whole measurement: the grid in several launches of ranks, which take turns, each asked about every cell."""

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.benchmark import idle
from pipeline.benchmark.arithmetic import slow_arithmetic
from pipeline.benchmark.grid import Cell, Models, cells, decode_cells, serving_cells
from pipeline.benchmark.kept import CellAnswer, Kept
from pipeline.benchmark.progress import Progress, Say
from pipeline.benchmark.protocol import Rules, rotated
from pipeline.benchmark.ranks.launcher import RankGroup, ended_in_order
from pipeline.benchmark.ranks.links import Loopback, NamespaceLinks, delayed_by, launches, make_links
from pipeline.benchmark.ttft import (
    Decoded,
    Measured,
    Resources,
    Served,
    joined,
    rank_spec,
    resources,
    rules_of,
    shares_weights,
)
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.link import LinkConfig, bits_per_second, delay_seconds
from pipeline.errors import RunError

LINK_PROBE_S = 0.2  # seconds that the probe of a link's speed fills
INSTRUMENTED = 5  # forwards with a stopwatch at every part, at most
INSTRUMENTED_S = 12  # fewer where that many rounds took longer; one at least
ENERGY_S = 1.0  # forwards of each architecture for so long, where energy is counted: counters are coarse
DECODE_ROUNDS = 3  # a launch
Item = TypeVar("Item")


@dataclass(frozen=True)
class Unit:
    """What one set of rank processes serves in a launch."""

    tp_size: int
    sizes: list[Models]
    links: list[str]

    def name(self, launch: int) -> str:
        return f"launch{launch}-tp{self.tp_size}-{'-'.join(self.links)}"


def measure_grid(
    benchmark: BenchmarkConfig,
    link: LinkConfig,
    cluster: ClusterConfig,
    grid: Mapping[int, list[Models]],
    folders: Mapping[str, Path],
    say: Say,
    kept: Kept | None = None,
) -> tuple[list[Measured], list[Decoded], list[Served]]:
    """Time the grid; `folders` holds trained models by name, random weights where there is none.

    Launch 1 of everything comes first, then launch 2, in another order. What a launch answered stays in `kept`
    when it has finished, and is not asked again. Raises RunError where a rank dies or hangs; nothing is left running
    then, nor any namespace.
    """
    units = [Unit(tp_size, sizes, group) for tp_size, sizes in grid.items() for group in launches(link.links)]
    prompts = sum(
        len(one.sizes) * len([*cells(benchmark, link), *decode_cells(benchmark), *serving_cells(benchmark, link)])
        for one in units
        for link in one.links
    )
    progress = Progress(say, benchmark.launches * prompts)
    answers: dict[tuple[int, int], list[CellAnswer]] = {}  # by unit and launch
    _warn(benchmark, cluster, max(grid), say)
    with ended_in_order(), tempfile.TemporaryDirectory(prefix="ttft-") as scratch:
        for launch in range(benchmark.launches):
            for index in ordered(range(len(units)), launch):
                unit, name = units[index], units[index].name(launch)
                found = kept.read(name) if kept else None
                if found is not None:
                    progress.skipped(len(found), f"launch {launch + 1} of {benchmark.launches}: kept from before")
                else:
                    run = Launch(benchmark, cluster, unit, folders, progress, launch)
                    found = run.answers(Path(scratch, name))
                    if kept:
                        kept.write(name, found)
                answers[index, launch] = found
    cells_of_all = [
        one
        for index, unit in enumerate(units)
        for one in _joined(
            benchmark, cluster, unit, [answers[index, launch] for launch in range(benchmark.launches)]
        )
    ]  # fmt: skip
    return (
        [one for one in cells_of_all if isinstance(one, Measured)],
        [one for one in cells_of_all if isinstance(one, Decoded)],
        [one for one in cells_of_all if isinstance(one, Served)],
    )


def _warn(benchmark: BenchmarkConfig, cluster: ClusterConfig, tp_size: int, say: Say) -> None:
    """Say before anything starts what will make times long."""
    shares = resources(cluster, tp_size)
    slow = slow_arithmetic(benchmark.dtype) if cluster.device == "cpu" else None
    for line in (idle.glance(shares.used_cores, shares.cores_here), slow):
        if line:
            say(line)


def ordered(names: Sequence[Item], launch: int) -> list[Item]:
    """The order of a launch: every second one goes backwards, every two another comes first."""
    along = [*names][::-1] if launch % 2 else [*names]
    return rotated(along, launch // 2)


def _joined(
    benchmark: BenchmarkConfig, cluster: ClusterConfig, unit: Unit, launches: Sequence[Sequence[CellAnswer]]
) -> list[Measured | Decoded | Served]:
    """A launch's answers beside those of the others, cell by cell, in the order of the grid."""
    by_key = [{answer.key: answer for answer in own} for own in launches]
    shares = resources(cluster, unit.tp_size)
    found: list[Measured | Decoded | Served] = []
    for models in unit.sizes:
        for link in unit.links:
            wanted = [(cell, False) for cell in [*cells(benchmark, link), *serving_cells(benchmark, link)]]
            wanted += [(cell, True) for cell in decode_cells(benchmark)]
            for cell, is_decoded in wanted:
                key = (models.size, cell.context, cell.batch_size, cell.concurrency, link, is_decoded)
                own = [answers[key] for answers in by_key]
                where = replace(shares, shared_weights=own[0].shared_weights)
                usage = idle.worst([idle.Usage(one.others_cpu_share, one.steal_share) for one in own])
                if is_decoded:
                    rounds = {name: [one.decoded[name] for one in own if one.decoded] for name in own[0].decoded or {}}
                    found.append(Decoded(models, cell, link, where, rounds, usage))
                    continue
                if cell.concurrency:
                    served = {name: [one.served[name] for one in own if one.served] for name in own[0].served or {}}
                    found.append(Served(models, cell, link, where, served, usage))
                    continue
                speeds = [one.link_bits_per_s for one in own if one.link_bits_per_s is not None]
                rates = [one.matrix_flops_per_s for one in own if one.matrix_flops_per_s]
                found.append(
                    Measured(
                        models,
                        cell,
                        link,
                        statistics.median(speeds) if speeds else None,
                        where,
                        joined([one.rounds for one in own if one.rounds]),
                        own[0].instrumented,
                        usage=usage,
                        matrix_flops_per_s=statistics.median(rates) if rates else None,
                        energy_joules=own[0].energy_joules,
                    )
                )
    return found


@dataclass(frozen=True)
class Launch:
    """One set of rank processes and all they are asked in launch number `launch`, from 0."""

    benchmark: BenchmarkConfig
    cluster: ClusterConfig
    unit: Unit
    folders: Mapping[str, Path]
    progress: Progress
    launch: int

    @property
    def named(self) -> str:
        return f"launch {self.launch + 1} of {self.benchmark.launches}"

    def rules(self) -> Rules:
        """Each launch has its share of the time."""
        rules = rules_of(self.benchmark)
        return replace(rules, time_limit_s=rules.time_limit_s / self.benchmark.launches)

    def answers(self, store: Path) -> list[CellAnswer]:
        """Start ranks and ask about every cell of the unit. Raises RunError where a rank dies or hangs."""
        tp_size = self.unit.tp_size
        shares = resources(self.cluster, tp_size)
        found: list[CellAnswer] = []
        with make_links(self.unit.links, tp_size) as joined_ranks:
            spec = rank_spec(self.benchmark, self.cluster, tp_size, store, joined_ranks.interfaces)
            links = ordered(self.unit.links, self.launch)
            self.progress.say(f"{self.named}: starting {tp_size} ranks ({', '.join(links)})")
            with RankGroup(spec, joined_ranks, self.benchmark.rank_timeout_s) as ranks:
                rate = min(ranks.command("matrix_rate"))
                for models in ordered(self.unit.sizes, self.launch):
                    shares = replace(shares, shared_weights=self._load(ranks, models))
                    for link in links:
                        found += self._cells(ranks, joined_ranks, models, link, shares, rate)
        return found

    def _cells(
        self,
        ranks: RankGroup,
        joined_ranks: Loopback | NamespaceLinks,
        models: Models,
        link: str,
        shares: Resources,
        rate: float,
    ) -> list[CellAnswer]:
        """Every prompt of one size over one link, timed and decoded."""
        joined_ranks.set_link(link)
        speed = self._probe(ranks, link)
        if "model" in map(delayed_by, self.unit.links):
            modelled = delay_seconds(link) if delayed_by(link) == "model" else 0.0
            # by the rate that is really there: by a higher one the delay would pass while bytes still travel
            ranks.command("delay", delay_s=modelled, bits_per_s=speed)
        found = []
        asked = (
            (self._measure, cells(self.benchmark, link)),
            (self._decode, decode_cells(self.benchmark)),
            (self._serve, serving_cells(self.benchmark, link)),
        )
        for ask, wanted in asked:
            for cell in ordered(wanted, self.launch) if wanted else []:
                about = CellAnswer(
                    models.size, cell.context, cell.batch_size, link, speed, shares.shared_weights, rate,
                    concurrency=cell.concurrency,
                )  # fmt: skip
                watch = idle.Watch([process.pid for process in ranks.processes])
                done = ask(ranks, cell, about)
                usage = watch.usage()
                found.append(replace(about, others_cpu_share=usage.others, steal_share=usage.steal))
                busy = ", busy" if usage.is_busy(shares.used_cores, shares.cores_here) else ""
                where = f"{models.size} T={cell.context} B={cell.batch_size} TP {self.unit.tp_size} {link}"
                self.progress.finished(f"{where}, {self.named}: {done}{busy}")
        return found

    def _load(self, ranks: RankGroup, models: Models) -> bool:
        """Returns whether the architectures share their memory."""
        folders = {
            architecture: str(self.folders[models.weights_of(architecture)])
            for architecture in models.by_architecture
            if models.weights_of(architecture) in self.folders
        }
        raw = {
            name: models.by_architecture[name].model_dump(mode="json")
            for name in ordered(list(models.by_architecture), self.launch)
        }
        ranks.command("release")  # the size before would count as memory that is taken
        shared = shares_weights(self.benchmark, models, self.unit.tp_size, self.cluster.device)
        ranks.command("load", models=raw, folders=folders, shared=shared)
        return shared

    def _probe(self, ranks: RankGroup, link: str) -> float | None:
        """Bits per second that the link carries right now; None where one rank has none."""
        if self.unit.tp_size == 1:
            return None
        rate = bits_per_second(link) or 1e9
        payload = int(min(64e6, max(1e6, rate * LINK_PROBE_S / 8))) // 4 * 4
        return float(ranks.command("link", payload_bytes=payload, repeats=2)[0])

    def _measure(self, ranks: RankGroup, cell: Cell, answer: CellAnswer) -> str:
        """Fill in rounds, and what the first launch alone is asked: details, stopwatches, energy."""
        where = {"context": cell.context, "batch_size": cell.batch_size}
        is_first = self.launch == 0
        by_rank = ranks.command("measure", **where, rules=asdict(self.rules()), with_details=is_first)
        rounds = answer.rounds = dict(by_rank[0])
        count = max(map(len, rounds["samples_ms"].values()))
        done = f"{count} rounds in {rounds['seconds']:.0f} s"
        if not is_first:
            return done
        details = [one["details"] for one in by_rank]
        rounds["details"] = {name: _over_ranks([one[name] for one in details]) for name in details[0]}
        _check_agreement(rounds["details"], self.unit.tp_size)
        if self.benchmark.breakdown or self.benchmark.trace:
            round_s = rounds["seconds"] / (count + rounds["warmup_rounds"])
            repeats = max(1, min(INSTRUMENTED, int(INSTRUMENTED_S / round_s)))
            answer.instrumented = ranks.command("instrument", **where, repeats=repeats)
        if rounds.get("counts_energy"):
            medians = {name: statistics.median(rounds["samples_ms"][f"{name}/overlapped"]) for name in details[0]}
            repeats_by_name = {name: math.ceil(ENERGY_S * 1e3 / taken) for name, taken in medians.items()}
            counted = ranks.command("energy", **where, repeats=repeats_by_name)
            answer.energy_joules = {name: sum(one[name] for one in counted) for name in details[0]}
        return done

    def _decode(self, ranks: RankGroup, cell: Cell, answer: CellAnswer) -> str:
        """Fill in decoded."""
        answer.decoded = ranks.command(
            "decode",
            context=cell.context,
            batch_size=cell.batch_size,
            new_tokens=self.benchmark.decode_tokens,
            repeats=DECODE_ROUNDS,
        )[0]
        return "decoded"

    def _serve(self, ranks: RankGroup, cell: Cell, answer: CellAnswer) -> str:
        """Fill in served. Raises RunError where ranks sampled different tokens."""
        by_rank = ranks.command(
            "serve",
            context=cell.context,
            concurrency=cell.concurrency,
            requests_per_client=self.benchmark.requests_per_client,
            new_tokens=self.benchmark.decode_tokens,
        )
        tokens = [{name: one.pop("tokens") for name, one in answers.items()} for answers in by_rank]
        agree = {name: {"ranks_agree": all(one[name] == tokens[0][name] for one in tokens)} for name in tokens[0]}
        _check_agreement(agree, self.unit.tp_size)
        answer.served = by_rank[0]
        return f"served at concurrency {cell.concurrency}"


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
