"""Tables of README and docs about Time To First Token, made of the committed measurements."""

from collections.abc import Sequence
from pathlib import Path

from pipeline import files
from pipeline.errors import ResultError
from pipeline.report import ttft_other_blocks as other
from pipeline.report.style import readable
from pipeline.report.table import markdown
from pipeline.report.ttft_words import ends, number, speedup
from pipeline.results import BASELINE, SurfaceResult, TtftResult, read
from pipeline.results.cell import BOUND, EXACT_RIVAL, NO_LINK, Cell
from pipeline.results.headline import HeadlineEntry
from pipeline.results.ttft import TtftRow
from pipeline.results.verdicts import CellVerdict

FOLDER = "xeon_2_cores/ttft"  # under results/reference
BANDS = {"socket": "band_socket", "gloo": "band_gloo"}  # the cells named beforehand, by transport


def blocks(reference: Path) -> dict[str, str]:
    """Text by block; `reference` is results/reference. Raises ResultError for a file that is none."""
    folder = reference / FOLDER
    commands = files.read_json(folder / "commands.json")

    def result(name: str) -> TtftResult:
        return read(folder / f"{name}.json", TtftResult)

    def told(table: str, name: str) -> str:
        return f"{table}\n\n`{commands[name]}`"

    bands = {transport: result(name) for transport, name in BANDS.items()}
    sweep, wire, surface, serving = (result(name) for name in ("sweep", "wire", "surface", "serving"))
    fit = read(folder / "surface_fit.json", SurfaceResult)
    return {
        "ttft, short": _headline(bands, against=(BASELINE,)),
        "ttft, headline": told(_headline(bands, against=(BASELINE, EXACT_RIVAL)), "band_socket"),
        "ttft, own": _own(bands),
        "ttft, costs": _costs(sweep),
        "ttft, cells": told(_cells(sweep), "sweep"),
        "ttft, band over socket": told(_cells(bands["socket"]), "band_socket"),
        "ttft, band over gloo": told(_cells(bands["gloo"]), "band_gloo"),
        "ttft, winners": _winners(sweep),
        "ttft, wire": told(other.wires(wire), "wire"),
        "ttft, wire errors": other.wire_errors(wire),
        "ttft, surface": told(other.surface(fit), "surface"),
        "ttft, break even": other.break_even(fit),
        "ttft, surface costs": _costs(surface),
        "ttft, batches": told(other.batches(serving), "serving"),
        "ttft, serving": other.serving(serving),
        "ttft, prefill": told(other.prefill(files.read_json(folder / "prefill.json")["rows"]), "prefill"),
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
    carried = {row.transport for row in sweep.rows if row.tp_size > 1 and row.link != NO_LINK}
    if carried != {transport}:
        raise ResultError(f"the sums of {BANDS[transport]}.json were carried by {sorted(carried)}, not by {transport}")
    entry = next(entry for entry in sweep.headline.named if entry.against == BASELINE)
    share = "" if entry.exposed_low is None else f", of the standard model's time {_band(entry)} is exposed"
    cells = ", ".join(f"{cell.link} T={cell.context}" for cell in entry.cells)
    return f"Measured over {transport}, {sweep.protocol.launches} launches; cells named beforehand: {cells}{share}."


def _band(entry: HeadlineEntry) -> str:
    return f"{entry.exposed_low:.0%} to {entry.exposed_high:.0%}"


def _mean(entry: HeadlineEntry | None) -> str:
    if entry is None:
        return "–"
    return f"{entry.geomean_speedup:+.1%}{ends(entry.geomean_speedup_low, entry.geomean_speedup_high, '+.1%')}"


def _own(sweeps: dict[str, TtftResult]) -> str:
    """What share of its own communication each overlapping model hides, cell by cell."""
    rows = [
        [
            *(readable(row.architecture), transport, row.link, row.context),
            *("–" if part is None else f"{part:.0f}" for part in (row.blocking_ms, row.ttft_ms_median, row.compute_ms)),
            f"{row.own_share_hidden:.0%}{ends(row.own_share_low, row.own_share_high, '.0%')}",
        ]
        for transport, sweep in sweeps.items()
        for row in sweep.rows
        if row.own_share_hidden is not None
    ]
    headers = [
        "model",
        "transport",
        "link",
        "T",
        "nothing hidden (ms)",
        "as it is (ms)",
        "compute alone (ms)",
        "hidden",
    ]
    return markdown(headers, rows)


def _costs(result: TtftResult) -> str:
    """FLOPs and parameters of a rank, beside the standard model's."""
    chosen: dict[tuple[str, int], TtftRow] = {}
    for row in result.rows:
        if row.architecture != BOUND:
            chosen.setdefault((row.architecture, row.context), row)
    rows = [
        [
            *(readable(row.architecture), row.model, row.context, f"{(row.flops or 0) / 1e9:.1f}"),
            *(number(row.flops_ratio, ".3f"), f"{row.parameters:,}", f"{row.layer_parameters:,}"),
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
        ms = f"{own.ttft_ms_median:.0f}{ends(own.ttft_ms_low, own.ttft_ms_high, '.0f')}"
        share = "–" if exposed is None else f"{exposed / own.ttft_ms_median:.0%}"
        marks = [own.kind] * (own.kind != "measured") + ["machine busy"] * any(row.busy for row in rows.values())
        where = f"{cell.link} ({'; '.join(marks)})" if marks else cell.link
        lines.append([where, cell.context, ms, share, own.repeats, *(speedup(rows.get(name)) for name in names)])
    headers = [f"{readable(name)} ({_flops(result, name)} of its FLOPs)" for name in names]
    return markdown(["link", "T", "standard (ms)", "exposed", "rounds", *headers], lines)


def _flops(result: TtftResult, name: str) -> str:
    """A rank's FLOPs over the standard model's, least to most over contexts."""
    ratios = [row.flops_ratio for row in result.rows if row.architecture == name and row.flops_ratio is not None]
    ends_of = dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios))) if ratios else {"–": None}
    return " to ".join(ends_of)


def _winners(result: TtftResult) -> str:
    """Which architecture is fastest where, and whether it can be told from the next."""
    headers = ["where", "fastest", "over standard", "ahead of", "by", "told apart", "faster than standard"]
    return markdown(headers, [_winner(verdict) for verdict in result.verdicts])


def _winner(verdict: CellVerdict) -> list[str]:
    cell = verdict.cells[0]
    where = f"{cell.link}, T={cell.context}" if verdict.scope == "cell" else f"{verdict.scope} cells"
    lead = f"{verdict.lead:+.1%}{ends(verdict.lead_low, verdict.lead_high, '+.1%')}"
    beats = ", ".join(readable(name) for name in verdict.beats_standard) or "none"
    return [
        *(where, readable(verdict.fastest), f"{verdict.speedup:+.1%}", readable(verdict.next), lead),
        *({True: "yes", False: "no", None: "–"}[verdict.told_apart], beats),
    ]
