"""From samples to the rows of a result file. docs/ttft.md defines every column."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.benchmark.protocol import ratio_interval, summarise
from pipeline.benchmark.ranks.spans import KINDS
from pipeline.benchmark.ttft import Decoded, Measured, Resources
from pipeline.communication.transport import transport_name
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.models import Placement, count

BOUND = "no_communication"


def ttft_rows(measured: Measured, benchmark: BenchmarkConfig) -> list[dict[str, Any]]:
    """One row an architecture, and one for the no-communication bound of the standard model."""
    samples = measured.result["samples_ms"]
    architectures = list(measured.models.by_architecture)
    rows = [_row(measured, benchmark, name, samples[_key(name)]) for name in architectures]
    if benchmark.no_communication_bound:
        rows.append(_row(measured, benchmark, BOUND, samples[_key(BOUND)]))
    return rows


def _row(measured: Measured, benchmark: BenchmarkConfig, name: str, series: Sequence[float]) -> dict[str, Any]:
    samples = measured.result["samples_ms"]
    architecture = "standard" if name == BOUND else name
    blocking = samples.get(f"{architecture}/blocking") if name != BOUND else None
    details = measured.result["details"][architecture]
    device_ms = measured.result["device_ms"].get(_key(name))
    columns = speed_columns(
        series,
        standard=samples["standard/overlapped"],
        bound=samples["standard/skipped"],
        compute=samples[f"{architecture}/skipped"],
    )
    row = (
        _identity(measured, benchmark, name)
        | columns
        | {
            "device_ms_median": summarise(device_ms).median
            if device_ms and measured.resources.device == "cuda"
            else None,
            "warmup_rounds": measured.result["warmup_rounds"],
            "collectives": 0 if name == BOUND else details["collectives"],
            "bytes": 0 if name == BOUND else details["bytes"],
            "peak_memory_bytes": details["peak_memory_bytes"],
            "ranks_agree": None if name == BOUND else details["ranks_agree"],
        }
    )
    return row | _own_overlap(columns["ttft_ms_median"], columns["compute_ms"], blocking)


def _key(name: str) -> str:
    """The variant behind a row."""
    return "standard/skipped" if name == BOUND else f"{name}/overlapped"


def speed_columns(
    series: Sequence[float],
    standard: Sequence[float],
    bound: Sequence[float],
    compute: Sequence[float],
) -> dict[str, Any]:
    """What every TTFT row says of its own samples and of those it is held against (milliseconds a round).

    `bound` is the standard model without collectives, `compute` the row's own model without them.
    """
    own, t_standard = summarise(series), summarise(standard).median
    hideable = t_standard - summarise(bound).median
    faster = ratio_interval(standard, series)
    return {
        "ttft_ms_median": own.median,
        "ttft_ms_p95": own.p95,
        "ttft_ms_low": own.low,
        "ttft_ms_high": own.high,
        "ttft_ms_min": own.minimum,
        "speedup": t_standard / own.median - 1,
        "speedup_low": faster[0] - 1,
        "speedup_high": faster[1] - 1,
        "compute_ms": summarise(compute).median,
        "exposed_communication_ms": own.median - summarise(compute).median,
        "hideable_ms": hideable,
        "share_hidden": (t_standard - own.median) / hideable if hideable > 0 else None,
        "repeats": own.repeats,
    }


def _own_overlap(median: float, compute: float, blocking: Sequence[float] | None) -> dict[str, Any]:
    """How much of its own collectives' time an architecture hides: against itself made to wait at once."""
    if blocking is None:
        return {"blocking_ms": None, "own_hideable_ms": None, "own_share_hidden": None}
    waited = summarise(blocking).median
    hideable = waited - compute
    return {
        "blocking_ms": waited,
        "own_hideable_ms": hideable,
        "own_share_hidden": (waited - median) / hideable if hideable > 0 else None,
    }


def _identity(measured: Measured | Decoded, benchmark: BenchmarkConfig, name: str) -> dict[str, Any]:
    models, shares = measured.models, measured.resources
    model = models.by_architecture["standard" if name == BOUND else name]
    return {
        "kind": "measured",
        "architecture": name,
        "model": model.name,
        "size": models.size,
        "context": measured.cell.context,
        "batch_size": measured.cell.batch_size,
        "tp_size": models.tp_size,
        "n_layer": model.n_layer,
        "engine": "torch",
        "mode": "cuda graph" if shares.device == "cuda" and benchmark.cuda_graph else "eager",
        "device": shares.device,
        "dtype": benchmark.dtype,
        "transport": transport_name(benchmark.transport, shares.device, models.tp_size),
        "link": measured.link,
        "link_measured_bits_per_s": measured.link_bits_per_s if isinstance(measured, Measured) else None,
        "threads_per_rank": shares.threads,
        "pinned_cores": shares.cores,
        "oversubscribed": shares.oversubscribed,
        "weights": benchmark.weights,
        "shared_weights": shares.shared_weights,
        "comparability": comparability(measured.models, name, shares),
    }


def comparability(models: Any, name: str, shares: Resources) -> str:
    """In words: what a reader must know before holding this row against the standard model's."""
    notes = []
    if name == BOUND:
        notes.append("a bound, wrong output: the standard model with its collectives left out")
    else:
        placement = Placement(0, models.tp_size)
        ours = count.matrix_parameters(models.by_architecture[name], placement)
        theirs = count.matrix_parameters(models.by_architecture["standard"], placement)
        change = ours / theirs - 1
        notes.append("same layer parameters as standard" if change == 0 else f"{change:+.1%} layer parameters a rank")
    if shares.oversubscribed:
        notes.append("ranks exceed cores: ranks take turns, so times show order, not overlap")
    return "; ".join(notes)


def decode_rows(decoded: Decoded, benchmark: BenchmarkConfig) -> list[dict[str, Any]]:
    """Time per output token of every architecture: the median over all steps and rounds, and by step."""
    rows = []
    standard = _step_medians(decoded.rounds["standard"])
    for name, rounds in decoded.rounds.items():
        statistics = summarise(_step_medians(rounds))
        everything = [step for steps in rounds for step in steps]
        rows.append(
            _identity(decoded, benchmark, name)
            | {
                "new_tokens": benchmark.decode_tokens,
                "ms_per_token_median": float(np.median(everything)),
                "ms_per_token_p95": float(np.percentile(everything, 95)),
                "ms_per_token_low": statistics.low,
                "ms_per_token_high": statistics.high,
                "ms_by_step": np.median(np.asarray(rounds), axis=0).tolist(),
                "tokens_per_s": decoded.cell.batch_size * 1e3 / float(np.mean(everything)),
                "speedup": summarise(standard).median / statistics.median - 1,
                "repeats": len(rounds),
            }
        )
    return rows


def _step_medians(rounds: list[list[float]]) -> list[float]:
    """The median over rounds of each step, (new_tokens,)."""
    return [float(value) for value in np.median(np.asarray(rounds), axis=0)]


def breakdown_rows(measured: Measured, benchmark: BenchmarkConfig) -> list[dict[str, Any]]:
    """Milliseconds by kind of work: medians over instrumented forwards, of the rank that took longest."""
    rows = []
    for name in measured.models.by_architecture:
        by_rank = [rank[name]["kinds_ms"] for rank in measured.instrumented]
        totals = [float(np.median([sum(forward.values()) for forward in forwards])) for forwards in by_rank]
        slowest = int(np.argmax(totals))
        kinds = {f"{kind}_ms": float(np.median([one[kind] for one in by_rank[slowest]])) for kind in KINDS}
        facts = {"rank": slowest, "forwards": len(by_rank[slowest]), **kinds, "total_ms": totals[slowest]}
        rows.append(_identity(measured, benchmark, name) | facts)
    return rows
