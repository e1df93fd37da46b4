"""Tables of README and docs about Time To First Token, made of the committed measurements."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline import files
from pipeline.report.style import readable
from pipeline.report.table import markdown
from pipeline.results import BASELINE, SurfaceResult, TtftResult, read
from pipeline.results.ttft import BOUND, Cell, CellVerdict, HeadlineEntry, TtftRow

FOLDER = "xeon_2_cores/ttft"  # under results/reference
SWEEPS = {"socket": "sweep_socket.json", "gloo": "sweep_gloo.json"}  # by transport
SPLIT = "standard_split"
OWN = ("kraken", "kraken_flops", "ladder")  # what hides sums of its own, exact copies left out


def blocks(reference: Path) -> dict[str, str]:
    """Text by block; `reference` is results/reference. Raises ResultError for a file that is none."""
    folder = reference / FOLDER
    sweeps = {transport: read(folder / name, TtftResult) for transport, name in SWEEPS.items()}
    whole = sweeps["socket"]
    wire, serving = read(folder / "wire.json", TtftResult), read(folder / "serving.json", TtftResult)
    return {
        "ttft, short": _headline(sweeps, against=(BASELINE,)),
        "ttft, headline": _headline(sweeps, against=(BASELINE, SPLIT)),
        "ttft, own": _own(sweeps),
        "ttft, costs": _costs(whole),
        "ttft, cells": _cells(whole),
        "ttft, cells over gloo": _cells(sweeps["gloo"]),
        "ttft, winners": _winners(whole),
        "ttft, mark": _cells(read(folder / "mark.json", TtftResult)),
        "ttft, wire": _wire(wire),
        "ttft, wire errors": _wire_errors(wire),
        "ttft, surface": _surface(read(folder / "surface_fit.json", SurfaceResult)),
        "ttft, break even": _break_even(read(folder / "surface_fit.json", SurfaceResult)),
        "ttft, serving": _serving(serving),
        "ttft, decode": _decode(read(folder / "decode.json", TtftResult)),
        "ttft, prefill": _prefill(files.read_json(folder / "prefill.json")["rows"]),
    }


def _headline(sweeps: dict[str, TtftResult], against: Sequence[str]) -> str:
    """The geometric means over the cells that were named beforehand, a column a transport and rival."""
    columns = {
        (transport, rival): {entry.architecture: entry for entry in sweep.headline.named if entry.against == rival}
        for transport, sweep in sweeps.items()
        for rival in against
    }
    names = list(dict.fromkeys(name for entries in columns.values() for name in entries if name != BOUND))
    headers = ["model", *(f"{transport}: over {readable(rival)}" for transport, rival in columns)]
    rows = [[readable(name), *(_mean(entries.get(name)) for entries in columns.values())] for name in names]
    notes = [_named_note(transport, sweep) for transport, sweep in sweeps.items()]
    return f"{markdown(headers, rows)}\n\n" + "\n".join(notes)


def _named_note(transport: str, sweep: TtftResult) -> str:
    entry = next(entry for entry in sweep.headline.named if entry.against == BASELINE)
    share = "" if entry.exposed_low is None else f", of the standard model's time {_band(entry)} is exposed"
    cells = ", ".join(f"{cell.link} T={cell.context}" for cell in entry.cells)
    return f"Measured over {transport}, {sweep.protocol.launches} launches; cells named beforehand: {cells}{share}."


def _band(entry: HeadlineEntry) -> str:
    return f"{entry.exposed_low:.0%} to {entry.exposed_high:.0%}"


def _mean(entry: HeadlineEntry | None) -> str:
    if entry is None:
        return "–"
    return f"{entry.geomean_speedup:+.1%}{_ends(entry.geomean_speedup_low, entry.geomean_speedup_high, '+.1%')}"


def _own(sweeps: dict[str, TtftResult]) -> str:
    """What share of its own communication each overlapping model hides in the named cells."""
    rows = []
    for transport, sweep in sweeps.items():
        named = {_key(cell) for entry in sweep.headline.named[:1] for cell in entry.cells}
        for name in OWN:
            shares = [
                row.own_share_hidden
                for row in sweep.rows
                if row.architecture == name and _key(row.cell) in named and row.own_share_hidden is not None
            ]
            if shares:
                rows.append([readable(name), transport, *(f"{f(shares):.0%}" for f in (median, min, max))])
    return markdown(["model", "transport", "hidden, median of cells", "least", "most"], rows)


def _costs(result: TtftResult) -> str:
    """FLOPs and parameters of a rank, beside the standard model's."""
    chosen: dict[tuple[str, int], TtftRow] = {}
    for row in result.rows:
        if row.architecture != BOUND:
            chosen.setdefault((row.architecture, row.context), row)
    rows = [
        [
            *(readable(row.architecture), row.model, row.context, f"{(row.flops or 0) / 1e9:.1f}"),
            *(_number(row.flops_ratio, ".3f"), f"{row.parameters:,}", f"{row.layer_parameters:,}"),
            *(row.collectives, f"{(row.collective_bytes or 0) / 1e6:.2f}"),
        ]
        for row in sorted(chosen.values(), key=lambda row: row.context)
    ]
    headers = ["architecture", "model", "T", "GFLOPs a rank", "of standard's"]
    return markdown([*headers, "parameters a rank", "in layers", "all-reduces", "MB into them"], rows)


def _cells(result: TtftResult) -> str:
    """A line a cell: the standard model's time and exposed share, then every architecture's speedup over it."""
    names = [name for name in dict.fromkeys(row.architecture for row in result.rows) if name not in (BASELINE, BOUND)]
    by_cell: dict[Cell, dict[str, TtftRow]] = {}
    for row in result.rows:
        by_cell.setdefault(row.cell, {})[row.architecture] = row
    lines = []
    for cell, rows in by_cell.items():
        own = rows[BASELINE]
        exposed = own.exposed_communication_ms
        ms = f"{own.ttft_ms_median:.0f}{_ends(own.ttft_ms_low, own.ttft_ms_high, '.0f')}"
        share = "–" if exposed is None else f"{exposed / own.ttft_ms_median:.0%}"
        busy = " (machine busy)" if any(row.busy for row in rows.values()) else ""
        lines.append(
            [f"{cell.link}{busy}", cell.context, ms, share, own.repeats, *(_speedup(rows.get(name)) for name in names)]
        )
    headers = ["link", "T", "standard (ms)", "exposed", "rounds", *(readable(name) for name in names)]
    return markdown(headers, lines)


def _speedup(row: TtftRow | None) -> str:
    if row is None or row.speedup is None:
        return "–"
    return f"{row.speedup:+.0%}{_ends(row.speedup_low, row.speedup_high, '+.0%')}"


def _winners(result: TtftResult) -> str:
    """Which architecture is fastest where, and whether it can be told from the next."""
    headers = ["where", "fastest", "over standard", "ahead of", "by", "told apart", "faster than standard"]
    return markdown(headers, [_winner(verdict) for verdict in result.verdicts])


def _winner(verdict: CellVerdict) -> list[str]:
    cell = verdict.cells[0]
    where = f"{cell.link}, T={cell.context}" if verdict.scope == "cell" else f"{verdict.scope} cells"
    lead = f"{verdict.lead:+.1%}{_ends(verdict.lead_low, verdict.lead_high, '+.1%')}"
    beats = ", ".join(readable(name) for name in verdict.beats_standard) or "none"
    return [
        *(where, readable(verdict.fastest), f"{verdict.speedup:+.1%}", readable(verdict.next), lead),
        *({True: "yes", False: "no", None: "–"}[verdict.told_apart], beats),
    ]


def _wire(result: TtftResult) -> str:
    """Speedups over the standard model with float32 sums, a column a wire."""
    wires = list(dict.fromkeys(row.wire for row in result.rows))
    models: dict[tuple[str | None, int, str], dict[str, TtftRow]] = {}
    for row in result.rows:
        if row.architecture != BOUND:
            name = row.architecture.removesuffix(f"_{row.wire}")
            models.setdefault((row.link, row.context, name), {})[row.wire] = row
    rows = [
        [link, context, readable(name), *(_speedup_or_time(own.get(wire)) for wire in wires)]
        for (link, context, name), own in models.items()
    ]
    return markdown(["link", "T", "model", *(f"{wire} sums" for wire in wires)], rows)


def _speedup_or_time(row: TtftRow | None) -> str:
    if row is not None and row.architecture == BASELINE:
        return f"{row.ttft_ms_median:.0f} ms{_ends(row.ttft_ms_low, row.ttft_ms_high, '.0f')}"
    return _speedup(row)


def _wire_errors(result: TtftResult) -> str:
    """What sums of fewer bytes do to logits and perplexity."""
    rows = [
        [
            *(readable(one.architecture), one.wire, one.model, one.weights, f"{one.relative_error:.1e}"),
            *(f"{one.top1_agreement:.2%}", _number(one.perplexity_float32, ".2f"), _number(one.perplexity, ".2f")),
            _number(one.loss_difference_nats, "+.5f") + _error(one.loss_difference_standard_error),
        ]
        for one in result.wire_errors
    ]
    headers = ["model", "sums in", "config", "weights", "error of logits", "same first choice"]
    return markdown([*headers, "perplexity, float32 sums", "perplexity", "loss, difference (nats)"], rows)


def _surface(result: SurfaceResult) -> str:
    """How well the fitted model meets what was timed."""
    rows = [
        [name.replace("_", " "), one.rows, f"{one.mean_absolute_error:.1%}", f"{one.bias:+.1%}", f"{one.worst:+.1%}"]
        for name, one in [*result.errors.items(), *((f"speedup of {k}", v) for k, v in result.speedup_errors.items())]
    ]
    values = ", ".join(
        f"{name} {one.value:.3g}{_ends(one.low, one.high, '.2g')} {one.unit}" for name, one in result.values.items()
    )
    table = markdown(["rows", "number", "mean absolute error", "bias", "worst"], rows)
    return f"{table}\n\n{result.method} Fitted: {values}."


def _break_even(result: SurfaceResult) -> str:
    """Down to, or up from, which link each architecture is faster, by the fitted model."""
    rows = [
        [
            *(readable(one.architecture), readable(one.against), one.context, one.wins),
            "–" if one.link_bits_per_s is None else f"{one.link_bits_per_s / 1e6:,.0f}{_rate(one.low, one.high)}",
        ]
        for one in result.break_even
    ]
    return markdown(["model", "faster than", "T", "on links", "rate (Mbit/s)"], rows)


def _rate(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low / 1e6:,.0f} to {high / 1e6:,.0f})"


def _serving(result: TtftResult) -> str:
    rows = [
        [
            *(row.link, readable(row.architecture), row.concurrency, row.requests),
            *(f"{value:.0f}" for value in (row.ttft_ms_p50, row.ttft_ms_p90, row.ttft_ms_p95, row.ttft_ms_p99)),
            *(f"{row.ms_per_token_p50:.0f}", f"{row.output_tokens_per_s:.1f}", f"{row.ttft_limit_ms:.0f}"),
            *(f"{row.share_within_limit:.0%}", f"{row.goodput_per_s:.2f}{_ends(row.goodput_low, row.goodput_high)}"),
        ]
        for row in result.serving_rows
    ]
    headers = ["link", "model", "clients", "requests", "TTFT p50 (ms)", "p90", "p95", "p99", "ms a token", "tokens/s"]
    return markdown([*headers, "limit (ms)", "within", "goodput (requests/s)"], rows)


def _decode(result: TtftResult) -> str:
    rows = [
        [
            *(row.link, row.context, row.batch_size, readable(row.architecture)),
            f"{row.ms_per_token_median:.1f}{_ends(row.ms_per_token_low, row.ms_per_token_high, '.1f')}",
            *(f"{row.ms_per_token_p95:.1f}", f"{row.tokens_per_s:.1f}", f"{row.speedup:+.1%}"),
        ]
        for row in result.decode_rows
    ]
    headers = ["link", "T", "batch", "model", "ms a token", "p95", "tokens/s", "speedup"]
    return markdown(headers, rows)


def _prefill(found: list[dict[str, Any]]) -> str:
    """Our prefill against transformers' GPT-2, and what products and attention reach."""

    def ratio(row: dict[str, Any], key: str) -> str:
        low, high = row[key]["interval_95"]
        return f"{row[key]['value']:.2f}{_ends(low, high)}"

    rows = [
        [
            *(row["context"], row["threads"], f"{row['median_ms']['ours']:.0f}", ratio(row, "ours_over_transformers")),
            *(ratio(row, "attention_over_sdpa"), ratio(row, "added_by_model_code")),
            *(f"{row['gflops_per_s'][part]:.0f}" for part in ("products", "attention", "sdpa")),
        ]
        for row in found
    ]
    headers = ["T", "threads", "prefill (ms)", "of transformers' GPT-2", "attention, of torch's kernel"]
    return markdown([*headers, "added to the parts alone", "products, GFLOP/s", "attention", "torch's kernel"], rows)


def _ends(low: float | None, high: float | None, form: str = ".2f") -> str:
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.5f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _key(cell: Cell) -> tuple[object, ...]:
    return (cell.size, cell.context, cell.batch_size, cell.tp_size, cell.link)
