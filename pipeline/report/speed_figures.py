"""Figures of Time To First Token: counterparts of the paper's Figures 4 and 5, and how well projections fit."""

from typing import Any

import matplotlib

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Body
from pipeline.report.speed import PAPER_ARCHITECTURES, SHOWN, TIME
from pipeline.report.style import COLOURS, HATCH, INK, SETTINGS, Figure, canvas, colour, finish, readable
from pipeline.report.table import Row

MAX_PANELS = 6


def cells_of(rows: list[Row], key: str) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Rows that carry `key`, by size, context, ranks and link, then by architecture."""
    cells: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row.get(key) is not None and row.get("batch_size", 1) == 1:
            place = (row.get("size"), row.get("context"), row.get("tp_size"), row.get("link"))
            cells.setdefault(place, {})[row["architecture"]] = row
    return cells


def _architectures(cells: dict[tuple[Any, ...], dict[str, Row]]) -> list[str]:
    seen = {name for cell in cells.values() for name in cell}
    return [name for name in SHOWN if name in seen] + sorted(seen - set(SHOWN))


def ttft_bars(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """TTFT by architecture with 95% intervals, a panel per number of ranks and link: the paper's Figures 4 and 5."""
    cells = cells_of(body.get("rows", []), TIME[kind])
    if not cells:
        return None
    names = _architectures(cells)
    panels = list(dict.fromkeys((tp_size, link) for _, _, tp_size, link in cells))[:MAX_PANELS]
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=0.6 + 2.3 * len(panels))
        for index, (tp_size, link) in enumerate(panels):
            chosen = {place: cell for place, cell in cells.items() if place[2:] == (tp_size, link)}
            axes = drawing.add_subplot(len(panels), 1, index + 1)
            _bars(axes, chosen, names, kind)
            axes.set_title(f"TP {tp_size}" + (f", {link}" if link else ""))
        for index, architecture in enumerate(names):
            axes.bar(0, 0, color=colour(architecture, index), label=readable(architecture))
        drawing.legend(loc="outside upper center", ncols=6, fontsize=8)
        what = "Median of the slowest rank over repeats; lines on top are 95% intervals." if kind == "measured" else ""
        caption = f"{what} Counterpart of the paper's Figures 4 and 5, which show speedups.".strip()
        return finish(drawing, f"ttft_{name}", f"Time To First Token, {label(name, body, kind)}", caption, kind, demo)


def _bars(axes: Any, cells: dict[tuple[Any, ...], dict[str, Row]], names: list[str], kind: str) -> None:
    key = TIME[kind]
    width = 0.84 / len(names)
    for index, architecture in enumerate(names):
        for position, cell in enumerate(cells.values()):
            row = cell.get(architecture)
            if row is None:
                continue
            low, high = row.get("ttft_ms_low"), row.get("ttft_ms_high")
            error = None
            if low is not None and high is not None:
                error = [[max(0.0, row[key] - low)], [max(0.0, high - row[key])]]
            axes.bar(
                position - 0.42 + width * (index + 0.5),
                row[key],
                width,
                yerr=error,
                capsize=2,
                color=colour(architecture, index),
                hatch=HATCH if kind == "projected" else None,
                error_kw={"elinewidth": 0.8},
            )
    if kind == "projected":
        axes.set_yscale("log")
        axes.minorticks_off()
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(len(cells)), [f"{size} @ {context}" for size, context, _, _ in cells], fontsize=7.5)
    axes.set_ylabel(f"TTFT, {kind} (ms)")


def label(name: str, body: Body, kind: str) -> str:
    """What a title calls a result: its benchmark, with the hardware where it is projected."""
    if kind == "projected":
        return f"{body.get('benchmark')} projected for {body.get('hardware')}"
    return name


def scatter(name: str, body: Body, reference: ReferenceConfig) -> Figure | None:
    """Projected against published milliseconds; filled points were used to fit."""
    rows = [row for row in body.get("rows", []) if row.get("published_ms") is not None]
    if not rows:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=5.4, height=4.6)
        axes = drawing.add_subplot()
        ends = [min(row["published_ms"] for row in rows) * 0.8, max(row["published_ms"] for row in rows) * 1.25]
        axes.plot(ends, ends, color=INK, linewidth=0.8)
        axes.fill_between(ends, [0.8 * e for e in ends], [1.2 * e for e in ends], color=INK, alpha=0.08, linewidth=0)
        for architecture in PAPER_ARCHITECTURES:
            for fitted in (True, False):
                chosen = [row for row in rows if row["architecture"] == architecture and bool(row["fitted"]) == fitted]
                if chosen:
                    axes.plot(
                        [row["published_ms"] for row in chosen],
                        [row["projected_ms"] for row in chosen],
                        "o",
                        color=COLOURS[architecture],
                        markerfacecolor=COLOURS[architecture] if fitted else "none",
                        label=f"{architecture}, {'fitted' if fitted else 'held out'}",
                        markersize=5,
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("published TTFT (ms)")
        axes.set_ylabel("projected TTFT (ms)")
        axes.legend(fontsize=8)
        caption = f"Published: {reference.source}. The band is ±20%."
        return finish(
            drawing,
            f"scatter_{name}",
            f"Projection against publication, {body.get('hardware')}",
            caption,
            "projected, quoted",
        )


def published_speedups(reference: ReferenceConfig, projection: Body | None) -> Figure:
    """The paper's own Figures 4 and 5, with our projection of the same rows beside them."""
    projected = {
        (row["size"], row["context"], row["tp_size"]): row["speedup"]
        for row in (projection or {}).get("rows", [])
        if row["architecture"] == "kraken" and row.get("published_ms") is not None
    }
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=3.4)
        tp_sizes = sorted({row.tp_size for row in reference.ttft})
        first = None
        for panel, tp_size in enumerate(tp_sizes):
            axes = drawing.add_subplot(1, len(tp_sizes), panel + 1, sharey=first)
            first = first or axes
            rows = [row for row in reference.ttft if row.tp_size == tp_size]
            for at, row in enumerate(rows):
                axes.bar(at - 0.28, 100 * (row.standard_ms / row.parallel_ms - 1), 0.26, color=COLOURS["parallel"])
                axes.bar(at, 100 * (row.standard_ms / row.kraken_ms - 1), 0.26, color=COLOURS["kraken"])
                value = projected.get((row.size, row.context, row.tp_size))
                if value is not None:
                    axes.bar(at + 0.28, 100 * value, 0.26, color=COLOURS["kraken"], alpha=0.45, hatch=HATCH)
            axes.set_xticks(range(len(rows)), [f"{row.size}\n@{row.context}" for row in rows], fontsize=6.5)
            axes.set_title(f"TP {tp_size}")
            if panel == 0:
                axes.set_ylabel("speedup over standard (%)")
                axes.bar(0, 0, color=COLOURS["parallel"], label="parallel, quoted")
                axes.bar(0, 0, color=COLOURS["kraken"], label="kraken, quoted")
                if projected:
                    axes.bar(0, 0, color=COLOURS["kraken"], alpha=0.45, hatch=HATCH, label="kraken, projected")
                drawing.legend(loc="outside upper center", ncols=3, fontsize=8)
        kind = "quoted, projected" if projected else "quoted"
        caption = f"The paper's Figures 4 and 5, drawn from its Tables 6 and 7 ({reference.source})."
        return finish(drawing, "published_speedups", "Published speedups", caption, kind)
