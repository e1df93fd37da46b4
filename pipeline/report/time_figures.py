"""Figures of what a forward spends its time on: counterparts of the paper's Figures 3, 6 and 7."""

from typing import Any

import matplotlib

from pipeline.report.breakdown import Cell, breakdowns, timelines
from pipeline.report.inputs import Body
from pipeline.report.speed_figures import label
from pipeline.report.style import INK, PARTS, SETTINGS, Figure, canvas, colour, finish, readable

MOST_CELLS = 4
LANES = 2.6  # height of one architecture's two lanes and the gap below


def breakdown_bars(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """Where the time goes by kind of operator, for a few cells spread over the grid."""
    cells = breakdowns(body)
    if not cells:
        return None
    chosen = list(cells)[:: max(1, (len(cells) + MOST_CELLS - 1) // MOST_CELLS)]
    bars = [(cell, architecture, parts) for cell in chosen for architecture, parts in cells[cell].items()]
    names = [part for part in PARTS if any(parts.get(part) for _, _, parts in bars)]
    names += sorted({part for _, _, parts in bars for part in parts} - set(PARTS))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=1.3 + 0.22 * len(bars) + 0.12 * len(chosen))
        axes = drawing.add_subplot()
        at, ticks = 0.0, []
        before: Cell | None = None
        for cell, architecture, parts in bars:
            at += 1.0 if before in (None, cell) else 1.6
            before = cell
            left = 0.0
            for index, part in enumerate(names):
                value = parts.get(part) or 0.0
                axes.barh(at, value, left=left, color=PARTS.get(part, colour(None, index)), height=0.85)
                left += value
            ticks.append((at, f"{_where(cell)}  {readable(architecture)}"))
        for index, part in enumerate(names):
            axes.barh(0, 0, color=PARTS.get(part, colour(None, index)), label=readable(part))
        axes.set_yticks([tick for tick, _ in ticks], [text for _, text in ticks], fontsize=7)
        axes.set_ylim(at + 0.7, 0.3)
        axes.set_xlabel(f"time, {kind} (ms)")
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "All-reduce is the part that nothing hides. Counterpart of the paper's Figures 6 and 7."
        title = f"Where the time goes, {label(name, body, kind)}"
        return finish(drawing, f"breakdown_{name}", title, caption, kind, demo)


def _where(cell: Cell) -> str:
    size, context, tp_size, link = cell
    return f"{size} @ {context}, TP {tp_size}" + (f", {link}" if link else "")


def timeline(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """Two lanes per architecture, compute above communication."""
    drawings = [drawing for drawing in timelines(body) if drawing.get("spans")]
    if not drawings:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=1.1 + 0.75 * len(drawings))
        axes = drawing.add_subplot()
        for index, one in enumerate(drawings):
            _lanes(axes, index * LANES, one["spans"])
        places = [index * LANES + 0.45 for index in range(len(drawings))]
        axes.set_yticks(places, [readable(one["architecture"]) for one in drawings])
        axes.set_ylim(len(drawings) * LANES - 1, -0.7)
        axes.set_xlabel(f"time, {kind} (ms)")
        axes.grid(axis="y", visible=False)
        used = {span["category"] for one in drawings for span in one["spans"]}
        for part in PARTS:
            if part in used:
                axes.barh(0, 0, color=PARTS[part], label=readable(part))
        drawing.legend(loc="outside upper center", ncols=7, fontsize=8)
        first = drawings[0]
        extent = f"first {first['layers']} layers" if first.get("layers") else "one forward of rank 0"
        where = _where(tuple(first.get(key) for key in ("size", "context", "tp_size", "link")))
        caption = f"{where}, {extent}; upper lane: compute, lower lane: communication. "
        caption += "All-reduce in the upper lane is waiting. " if kind == "measured" else ""
        caption += "Counterpart of the paper's Figure 3."
        title = f"What runs when, {label(name, body, kind)}"
        return finish(drawing, f"timeline_{name}", title, caption, kind, demo)


def _lanes(axes: Any, top: float, spans: list[dict[str, Any]]) -> None:
    start = min(span["start_ms"] for span in spans)
    for stream, at in (("compute", top), ("communication", top + 0.95)):
        chosen = [span for span in spans if span["stream"] == stream]
        axes.barh(
            [at] * len(chosen),
            [span["end_ms"] - span["start_ms"] for span in chosen],
            left=[span["start_ms"] - start for span in chosen],
            height=0.85,
            color=[PARTS.get(span["category"], colour(None, 0)) for span in chosen],
            edgecolor=INK,
            linewidth=0.15,
        )
