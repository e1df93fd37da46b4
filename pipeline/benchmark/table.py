"""Result rows as text for a terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from pipeline.benchmark.ranks.spans import KINDS

TTFT_HEAD = (
    *("architecture", "TTFT ms", "95% interval", "p95", "speedup"),
    *("compute", "exposed", "hidden", "own hidden", "MB", "calls"),
)


def ttft_table(rows: Sequence[dict[str, Any]]) -> str:
    """A block a cell: TTFT with its interval, speedup, compute, exposed communication, share hidden."""
    blocks = []
    for cell, group in groupby(rows, key=_cell):
        members = list(group)
        lines = [TTFT_HEAD, *(_ttft_line(row) for row in members)]
        note = " (ranks exceed cores)" if members[0]["oversubscribed"] else ""
        blocks.append(f"{cell}{note}, {members[0]['repeats']} rounds\n{_columns(lines)}")
    return "\n\n".join(blocks)


def breakdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds by kind of work, a block a cell."""
    head = ("architecture", *(kind.replace("_", " ") for kind in KINDS), "total")
    blocks = []
    for cell, group in groupby(rows, key=_cell):
        lines = [head, *(_breakdown_line(row) for row in group)]
        blocks.append(f"{cell}, ms by kind of work\n{_columns(lines)}")
    return "\n\n".join(blocks)


def decode_table(rows: Sequence[dict[str, Any]]) -> str:
    """Time per output token, a block a cell."""
    head = ("architecture", "ms/token", "95% interval", "p95", "tokens/s", "speedup")
    blocks = []
    for cell, group in groupby(rows, key=_cell):
        lines = [head, *(_decode_line(row) for row in group)]
        blocks.append(f"{cell}, decoding\n{_columns(lines)}")
    return "\n\n".join(blocks)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['size']}, T={row['context']}, B={row['batch_size']}, TP {row['tp_size']}, {row['link']}"


def _ttft_line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["architecture"],
        f"{row['ttft_ms_median']:.1f}",
        f"{row['ttft_ms_low']:.1f}–{row['ttft_ms_high']:.1f}",
        f"{row['ttft_ms_p95']:.1f}",
        f"{row['speedup']:+.1%}",
        _number(row["compute_ms"], 1),
        _number(row["exposed_communication_ms"], 1),
        _share(row["share_hidden"]),
        _share(row.get("own_share_hidden")),
        _number(row["bytes"], 2, 1e-6) if "bytes" in row else "–",
        str(row["collectives"]),
    )


def _breakdown_line(row: dict[str, Any]) -> tuple[str, ...]:
    return row["architecture"], *(f"{row[f'{kind}_ms']:.1f}" for kind in KINDS), f"{row['total_ms']:.1f}"


def _decode_line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["architecture"],
        f"{row['ms_per_token_median']:.2f}",
        f"{row['ms_per_token_low']:.2f}–{row['ms_per_token_high']:.2f}",
        f"{row['ms_per_token_p95']:.2f}",
        f"{row['tokens_per_s']:.1f}",
        f"{row['speedup']:+.1%}",
    )


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "–" if value is None else f"{value * factor:.{digits}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _columns(lines: Iterable[tuple[str, ...]]) -> str:
    table = list(lines)
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  " + "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )  # fmt: skip
