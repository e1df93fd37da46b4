"""From samples to rows: the only place that builds a TtftRow. docs/ttft.md defines every column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.benchmark.ranks.links import delayed_by
from pipeline.benchmark.ranks.spec import Mode
from pipeline.benchmark.ttft import Decoded, Measured, Served
from pipeline.communication.transport import sent_share, transport_name
from pipeline.config.benchmark import WIRES, BenchmarkConfig, unwired, wire_of
from pipeline.models import Placement, count
from pipeline.results.cell import BASELINE, BOUND, NO_LINK, Launches, Parts
from pipeline.results.kinds import Kind
from pipeline.results.statistics import (
    Compared,
    by_round,
    median,
    share_interval,
    speedup_interval,
    summarise,
    summarise_steps,
)
from pipeline.results.ttft import BreakdownRow, DecodeRow, RunRow, TtftRow


@dataclass(frozen=True)
class Series:
    """The rounds behind one row in milliseconds, one inner list a launch; None: not timed."""

    own: Launches
    baseline: Launches | None
    bound: Launches | None = None  # the baseline without collectives
    compute: Launches | None = None  # the row's own model without them
    blocking: Launches | None = None  # the row's own model, each collective awaited where it starts
    paired: bool = True  # all of these took turns


def ttft_row(about: RunRow, series: Series, facts: Mapping[str, Any]) -> TtftRow:
    """One row; `facts` are the columns that do not follow from samples. What was not timed is null."""
    own = summarise(series.own)
    baseline, bound, compute, blocking = (
        None if one is None else median(one) for one in (series.baseline, series.bound, series.compute, series.blocking)
    )
    hideable = _difference(baseline, bound)
    own_hideable = _difference(blocking, compute)
    low, high = None, None
    if series.baseline is not None and series.paired:
        low, high = speedup_interval(Compared(series.baseline, series.own))
    share_low, share_high = None, None
    if series.blocking is not None and series.compute is not None:
        share_low, share_high = share_interval(series.own, series.blocking, series.compute)
    flops, rate, seconds = facts.get("flops"), facts.get("matrix_flops_per_s"), own.median / 1e3
    return TtftRow(
        **dict(about),
        ttft_ms_median=own.median,
        ttft_ms_p90=own.p90,
        ttft_ms_p95=own.p95,
        ttft_ms_p99=own.p99,
        ttft_ms_low=own.low,
        ttft_ms_high=own.high,
        interval_over=own.over,
        ttft_ms_min=own.minimum,
        speedup=None if baseline is None else baseline / own.median - 1,
        speedup_low=low,
        speedup_high=high,
        compute_ms=compute,
        exposed_communication_ms=_difference(own.median, compute),
        hideable_ms=hideable,
        share_hidden=_share(_difference(baseline, own.median), hideable),
        blocking_ms=blocking,
        own_hideable_ms=own_hideable,
        own_share_hidden=_share(_difference(blocking, own.median), own_hideable),
        own_share_low=share_low,
        own_share_high=share_high,
        prompt_tokens_per_s=about.batch_size * about.context / seconds,
        model_flops_utilisation=flops / seconds / rate if flops and rate else None,
        repeats=own.repeats,
        paired=series.paired,
        samples_ms=series.own,
        compute_samples_ms=series.compute,
        blocking_samples_ms=series.blocking,
        **facts,
    )


def _difference(longer: float | None, shorter: float | None) -> float | None:
    return None if longer is None or shorter is None else longer - shorter


def _share(saved: float | None, hideable: float | None) -> float | None:
    return saved / hideable if saved is not None and hideable is not None and hideable > 0 else None


def ttft_rows(measured: Measured, benchmark: BenchmarkConfig) -> list[TtftRow]:
    """A row an architecture, one for the bound, and, where the link is a model, one a compute alone."""
    names = list(measured.models.by_architecture)
    bound = [BOUND] if benchmark.no_communication_bound else []
    rows = [_row(measured, benchmark, name, "overlapped") for name in [*names, *bound]]
    alone = names if measured.is_modelled else []
    return [*rows, *(_row(measured, benchmark, name, "skipped") for name in alone)]


def _row(measured: Measured, benchmark: BenchmarkConfig, name: str, mode: Mode) -> TtftRow:
    """`mode` is what became of the collectives, in this row and in the baseline that it is held against."""
    about = about_row(measured, benchmark, name, mode, is_captured=True)
    samples = measured.result["samples_ms"]
    is_bound = name == BOUND
    communicates = mode != "skipped" and not is_bound
    architecture = BASELINE if is_bound else name
    key = f"{architecture}/{'skipped' if is_bound else mode}"
    details = measured.result["details"][architecture]
    device_ms = measured.result["device_ms"].get(key) if about.device == "cuda" else None
    models, cell = measured.models, measured.cell
    placement = Placement(0, models.tp_size)

    def flops_of(one: str) -> int:
        return count.prefill_flops(models.by_architecture[one], cell.batch_size, cell.context, placement)

    series = Series(
        own=samples[key],
        baseline=samples[f"{BASELINE}/{mode}"],
        bound=samples[f"{BASELINE}/skipped"],
        compute=_timed(samples, f"{unwired(architecture)}/skipped"),
        blocking=None if is_bound or mode == "skipped" else _timed(samples, f"{architecture}/blocking"),
    )
    facts = {
        "device_ms_median": median(device_ms) if device_ms else None,
        "flops": flops_of(architecture),
        "flops_ratio": flops_of(architecture) / flops_of(BASELINE),
        "parameters": count.parameters(models.by_architecture[architecture], placement),
        "layer_parameters": count.matrix_parameters(models.by_architecture[architecture], placement),
        "matrix_flops_per_s": measured.matrix_flops_per_s,
        "energy_joules": measured.energy_joules.get(architecture) if communicates else None,
        "warmup_rounds": measured.result["warmup_rounds"],
        "stopped_by": measured.result.get("stopped_by"),
        "collectives": details["collectives"] if communicates else 0,
        "collective_bytes": details["bytes"] if communicates else 0,
        "sent_bytes": _sent_bytes(measured, benchmark, name) if communicates else 0,
        "peak_memory_bytes": details["peak_memory_bytes"],
        "ranks_agree": details.get("ranks_agree") if communicates else None,
    }
    return ttft_row(about, series, facts)


def _sent_bytes(measured: Measured, benchmark: BenchmarkConfig, name: str) -> int:
    """What leaves a rank in all its sums: the transport's payloads, without headers."""
    n_ranks = measured.models.tp_size
    carrier = transport_name(benchmark.transport, measured.resources.device, n_ranks)
    return int(measured.result["details"][name]["bytes"] * sent_share(carrier, wire_of(name), n_ranks))


def _timed(samples: Mapping[str, Launches], key: str) -> Launches | None:
    """The rounds of a variant that explains a row, if there were any."""
    found = samples.get(key)
    return found if found and all(found) else None


def about_row(
    measured: Measured | Decoded | Served,
    benchmark: BenchmarkConfig,
    name: str,
    mode: Mode = "overlapped",
    is_captured: bool = False,
) -> RunRow:
    """`is_captured`: as a CUDA graph, where the device is a GPU and the benchmark asks for one."""
    models, shares = measured.models, measured.resources
    model = models.by_architecture[BASELINE if name == BOUND else name]
    is_modelled = isinstance(measured, Measured) and measured.is_modelled
    kind, link, transport = _communication(measured, benchmark, mode)
    usage = measured.usage
    remarks = comparability(measured, name)
    return RunRow(
        kind=kind,
        architecture=name,
        model=model.name,
        n_layer=model.n_layer,
        size=models.size,
        context=measured.cell.context,
        batch_size=measured.cell.batch_size,
        tp_size=models.tp_size,
        link=link,
        link_measured_bits_per_s=measured.link_bits_per_s if isinstance(measured, Measured) else None,
        engine="torch",
        mode="cuda graph" if is_captured and shares.device == "cuda" and benchmark.cuda_graph else "eager",
        device=shares.device,
        dtype=benchmark.dtype,
        transport=transport,
        ranks_measured=1 if is_modelled else models.tp_size,
        threads_per_rank=shares.threads,
        pinned_cores=shares.cores,
        oversubscribed=shares.oversubscribed,
        weights="random" if is_modelled else benchmark.weights,
        shared_weights=shares.shared_weights,
        wire=benchmark.dtype if wire_of(name) == WIRES[0] else wire_of(name),
        others_cpu_share=usage.others,
        steal_share=usage.steal,
        busy=usage.is_busy(shares.used_cores, shares.cores_here),
        comparability=f"one rank's share; {remarks}" if is_modelled else remarks,
    )


def _communication(
    measured: Measured | Decoded | Served, benchmark: BenchmarkConfig, mode: Mode
) -> tuple[Kind, str, str]:
    """Kind, link and transport of rows whose collectives were so treated."""
    if mode == "skipped":
        return "measured", NO_LINK, NO_LINK
    if isinstance(measured, Measured) and measured.is_modelled:
        return "measured compute, modelled communication", measured.link, "modelled"
    models, device = measured.models, measured.resources.device
    carrier = transport_name(benchmark.transport, device, models.tp_size)
    by = delayed_by(measured.link)
    if by == "model":
        return "measured compute, modelled communication", measured.link, f"{carrier}+modelled delay"
    return "measured", measured.link, f"{carrier}+netem delay" if by == "netem" else carrier


def comparability(measured: Measured | Decoded | Served, name: str) -> str:
    """In words: what a reader must know before holding this row against the baseline's."""
    models, cell, shares = measured.models, measured.cell, measured.resources
    notes = []
    if name == BOUND:
        notes.append(f"a bound, wrong output: the {BASELINE} model with its collectives left out")
    elif name != BASELINE:
        placement = Placement(0, models.tp_size)
        ours, theirs = models.by_architecture[name], models.by_architecture[BASELINE]
        counts = {
            "FLOPs": [count.prefill_flops(one, cell.batch_size, cell.context, placement) for one in (ours, theirs)],
            "parameters": [count.parameters(one, placement) for one in (ours, theirs)],
            "layer parameters": [count.matrix_parameters(one, placement) for one in (ours, theirs)],
        }
        odd = {what: own / other - 1 for what, (own, other) in counts.items() if own != other}
        same = [what for what in counts if what not in odd]
        told = [f"{more:+.1%} {what}" for what, more in odd.items()] + [f"the same {what}" for what in same]
        notes.append(f"against {BASELINE}, a rank has {', '.join(told)}")
    if wire_of(name) != WIRES[0]:
        notes.append(f"its sums travel as {wire_of(name)}, rounded by every rank: see wire_errors")
    if delayed_by(measured.link) == "model":
        notes.append("this kernel cannot delay: sums really travel, and are handed over after the delay of a model")
    if shares.oversubscribed:
        notes.append("ranks exceed cores: ranks take turns, so times show order, not overlap")
    if measured.usage.is_busy(shares.used_cores, shares.cores_here):
        notes.append("the machine was busy: other processes or its host took CPU time while it was timed")
    return "; ".join(notes) or f"the {BASELINE} model, which others are held against"


def decode_rows(decoded: Decoded, benchmark: BenchmarkConfig) -> list[DecodeRow]:
    """Time per output token of every architecture: over all steps, rounds and launches, and by step."""
    rows = []
    baseline = by_round(decoded.rounds[BASELINE])  # launches × rounds
    for name, launches in decoded.rounds.items():
        steps = np.asarray([one for rounds in launches for one in rounds])  # (launches · rounds, steps)
        own = summarise_steps(launches)
        low, high = speedup_interval(Compared(baseline, by_round(launches)))
        rows.append(
            DecodeRow(
                **dict(about_row(decoded, benchmark, name)),
                new_tokens=benchmark.decode_tokens,
                ms_per_token_median=own.median,
                ms_per_token_p90=own.p90,
                ms_per_token_p95=own.p95,
                ms_per_token_p99=own.p99,
                ms_per_token_low=own.low,
                ms_per_token_high=own.high,
                interval_over=own.over,
                ms_by_step=np.median(steps, axis=0).tolist(),
                tokens_per_s=decoded.cell.batch_size * 1e3 / float(steps.mean()),
                speedup=median(baseline) / own.median - 1,
                speedup_low=low,
                speedup_high=high,
                repeats=own.repeats,
                samples_ms=launches,
            )
        )
    return rows


def breakdown_rows(measured: Measured, benchmark: BenchmarkConfig) -> list[BreakdownRow]:
    """Milliseconds by kind of work: medians over instrumented forwards, of the rank that took longest."""
    rows = []
    for name in measured.models.by_architecture:
        by_rank = [rank[name]["kinds_ms"] for rank in measured.instrumented]
        totals = [float(np.median([sum(forward.values()) for forward in forwards])) for forwards in by_rank]
        slowest = int(np.argmax(totals))
        forwards = by_rank[slowest]
        rows.append(
            BreakdownRow(
                **dict(about_row(measured, benchmark, name)),
                rank=slowest,
                forwards=len(forwards),
                breakdown_ms=Parts(**{part: float(np.median([one[part] for one in forwards])) for part in forwards[0]}),
                total_ms=totals[slowest],
            )
        )
    return rows
