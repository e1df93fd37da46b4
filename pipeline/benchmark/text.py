"""Result rows as text for a terminal."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from pipeline.results.cell import BASELINE, PARTS, Cell
from pipeline.results.headline import Headline, HeadlineEntry, busy_words
from pipeline.results.ttft import BreakdownRow, DecodeRow, RunRow, ServingRow, TtftRow, WireErrorRow
from pipeline.results.verdicts import CellVerdict, said

Row = TypeVar("Row", bound=RunRow)
TTFT_HEAD = (
    *("architecture", "TTFT ms", "95% interval", "p95", "p99", "speedup"),
    *("compute", "exposed", "hidden", "own hidden", "FLOPs", "MFU", "MB", "calls"),
)
DECODE_HEAD = ("architecture", "ms/token", "95% interval", "p95", "p99", "tokens/s", "speedup", "95% of it")
SERVING_HEAD = (
    *("architecture", "clients", "TTFT ms p50", "p90", "p95", "p99", "ms/token p50", "p90", "p95", "p99"),
    *("requests/s", "tokens/s", "within limit", "goodput/s", "95% interval"),
)
BANDS = (("all", ""), ("named", " named beforehand"))


def ttft_table(rows: Sequence[TtftRow]) -> str:
    """A block a cell and kind: TTFT with its interval, speedup, compute, exposed communication, share hidden."""
    blocks = []
    for (cell, kind), group in groupby(rows, key=lambda row: (_cell(row), row.kind)):
        members = list(group)
        lines = [TTFT_HEAD, *(_ttft_line(row) for row in members)]
        launches = len(members[0].samples_ms)
        rounds = f"{members[0].repeats} rounds" + (f" in {launches} launches" if launches > 1 else "")
        blocks.append(f"{cell}{_notes(members[0])}, {rounds}, {kind}\n{_columns(lines)}")
    return "\n\n".join(blocks)


def breakdown_table(rows: Sequence[BreakdownRow]) -> str:
    """Milliseconds by kind of work, a block a cell; kinds that no row has are left out."""
    parts = [part for part in PARTS if any(getattr(row.breakdown_ms, part) for row in rows)]
    head = ("architecture", *(part.replace("_", " ") for part in parts), "total")

    def line(row: BreakdownRow) -> tuple[str, ...]:
        times = (getattr(row.breakdown_ms, part) for part in parts)
        return (row.architecture, *(f"{time:.1f}" for time in times), f"{row.total_ms:.1f}")

    return _blocks(rows, "ms by kind of work", head, line)


def decode_table(rows: Sequence[DecodeRow]) -> str:
    """Time per output token, a block a cell."""
    return _blocks(rows, "decoding", DECODE_HEAD, _decode_line)


def serving_table(rows: Sequence[ServingRow]) -> str:
    """Clients at a time, a block a cell: percentiles of what requests waited, rates, goodput at the limit."""
    blocks = []
    for _, group in groupby(rows, key=_cell):
        own = list(group)
        about = f"clients in a closed loop, TTFT limit {own[0].ttft_limit_ms:.0f} ms ({own[0].ttft_limit_from})"
        blocks.append(_blocks(own, about, SERVING_HEAD, _serving_line))
    return "\n\n".join(blocks)


def wire_table(rows: Sequence[WireErrorRow]) -> str:
    """What other wires do to logits and, of trained models, to the loss: a line an architecture and wire."""
    if not rows:
        return ""
    head = (
        "architecture",
        "wire",
        "weights",
        "logits off by",
        "at most",
        "same top token",
        "loss, nats",
        "more than float32",
    )
    lines = [
        (
            row.architecture,
            row.wire,
            row.weights,
            f"{row.relative_error:.2%}",
            f"{row.largest_logit_difference:.4f}",
            f"{row.top1_agreement:.1%}",
            _number(row.loss_nats, 4),
            "–"
            if row.loss_difference_nats is None
            else f"{row.loss_difference_nats:+.5f} ± {row.loss_difference_standard_error or 0:.5f}",
        )
        for row in rows
    ]
    return f"{rows[0].size}, TP {rows[0].tp_size}, sums in other wires against float32\n{_columns([head, *lines])}"


def headline_text(headline: Headline) -> str:
    """A line an entry: geometric mean with its interval, what it covers, and its kind; last what was not timed."""
    lines = [_entry_line(entry, where) for band, where in BANDS for entry in getattr(headline, band)]
    missing = ", ".join(headline.missing)
    return "\n".join([*lines, f"links named beforehand that were not timed: {missing}"] if missing else lines)


def _entry_line(entry: HeadlineEntry, where: str) -> str:
    low, high = entry.geomean_speedup_low, entry.geomean_speedup_high
    interval = "" if low is None or high is None else f" ({low:+.1%} to {high:+.1%})"
    share = entry.median_share_hidden
    hidden = "" if share is None else f", {share:.0%} of the hideable time hidden (median)"
    rows = f"{entry.rows} row{'s' if entry.rows > 1 else ''}{where}"
    if entry.exposed_low is not None and entry.exposed_high is not None:
        exposed = dict.fromkeys(f"{share:.0%}" for share in (entry.exposed_low, entry.exposed_high))
        rows += f" ({BASELINE} exposes {' to '.join(exposed)})"
    over = "" if entry.against == BASELINE else f" over {entry.against}"
    return (
        f"geometric mean speedup over {rows}: {entry.architecture} {entry.geomean_speedup:+.1%}{over}"
        f"{interval}{hidden} ({_kind(entry)})"
    )


def verdicts_text(verdicts: Sequence[CellVerdict]) -> str:
    """A line each: which architecture is fastest where, whether that can be told, and where none beats standard."""
    return "\n".join(f"{_scope(one)}: {said(one)}" for one in verdicts)


def _scope(verdict: CellVerdict) -> str:
    first, number = verdict.cells[0], len(verdict.cells)
    where = {
        "all": f"over all {number} cells",
        "named": f"over the {number} cells named beforehand",
        "cell": _cell(first),
    }[verdict.scope]
    return f"{where} ({_kind(verdict)})"


def _kind(found: HeadlineEntry | CellVerdict) -> str:
    """Its kind, and what makes it doubtful."""
    doubts = [*["ranks exceed cores"] * found.oversubscribed, busy_words(found.busy, len(found.cells))]
    return ", ".join([found.kind, *filter(None, doubts)])


def _blocks(rows: Sequence[Row], about: str, head: tuple[str, ...], line: Callable[[Row], tuple[str, ...]]) -> str:
    blocks = []
    for cell, own in groupby(rows, key=_cell):
        members = list(own)
        blocks.append(f"{cell}{_notes(members[0])}, {about}\n{_columns([head, *map(line, members)])}")
    return "\n\n".join(blocks)


def _notes(row: RunRow) -> str:
    """What makes a whole block doubtful."""
    notes = ["ranks exceed cores"] * row.oversubscribed
    if row.busy:
        notes.append(f"machine busy: others {row.others_cpu_share or 0:.0%}, host {row.steal_share or 0:.0%}")
    return f" ({'; '.join(notes)})" if notes else ""


def _cell(row: Cell) -> str:
    return f"{row.size}, T={row.context}, B={row.batch_size}, TP {row.tp_size}, {row.link}"


def _ttft_line(row: TtftRow) -> tuple[str, ...]:
    return (
        row.architecture,
        f"{row.ttft_ms_median:.1f}",
        _ends(row.ttft_ms_low, row.ttft_ms_high, 1),
        f"{row.ttft_ms_p95:.1f}",
        _number(row.ttft_ms_p99, 1),
        "–" if row.speedup is None else f"{row.speedup:+.1%}",
        _number(row.compute_ms, 1),
        _number(row.exposed_communication_ms, 1),
        _share(row.share_hidden),
        _share(row.own_share_hidden),
        "–" if row.flops_ratio is None else f"{row.flops_ratio:.3f}×",
        _share(row.model_flops_utilisation),
        _number(row.collective_bytes, 2, 1e-6),
        str(row.collectives),
    )


def _decode_line(row: DecodeRow) -> tuple[str, ...]:
    return (
        row.architecture,
        f"{row.ms_per_token_median:.2f}",
        _ends(row.ms_per_token_low, row.ms_per_token_high, 2),
        f"{row.ms_per_token_p95:.2f}",
        _number(row.ms_per_token_p99, 2),
        f"{row.tokens_per_s:.1f}",
        f"{row.speedup:+.1%}",
        _gain(row.speedup_low, row.speedup_high),
    )


def _serving_line(row: ServingRow) -> tuple[str, ...]:
    per_token = (row.ms_per_token_p50, row.ms_per_token_p90, row.ms_per_token_p95, row.ms_per_token_p99)
    return (
        row.architecture,
        str(row.concurrency),
        *(f"{ms:.0f}" for ms in (row.ttft_ms_p50, row.ttft_ms_p90, row.ttft_ms_p95, row.ttft_ms_p99)),
        *(f"{ms:.1f}" for ms in per_token),
        f"{row.requests_per_s:.2f}",
        f"{row.output_tokens_per_s:.1f}",
        _share(row.share_within_limit),
        f"{row.goodput_per_s:.2f}",
        _ends(row.goodput_low, row.goodput_high, 2),
    )


def _ends(low: float | None, high: float | None, digits: int) -> str:
    return "–" if low is None or high is None else f"{low:.{digits}f}–{high:.{digits}f}"


def _gain(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:+.1%} to {high:+.1%}"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:.{digits}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _columns(table: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  " + "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )  # fmt: skip
