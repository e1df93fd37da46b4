"""Figures of what a forward spends its time on: counterparts of the paper's Figures 3, 6 and 7."""

from collections.abc import Sequence
from typing import Any

import matplotlib

from pipeline.report.inputs import ordered
from pipeline.report.speed_figures import place
from pipeline.report.style import INK, PARTS, SETTINGS, Figure, axis, canvas, finish, readable
from pipeline.report.timed import Timed
from pipeline.results import TtftResult
from pipeline.results.cell import Cell, TimelineEvent
from pipeline.results.projection import ProjectionRow
from pipeline.results.ttft import BreakdownRow

MOST_CELLS = 4
LANES = 2.6  # height of one architecture's two lanes and the gap below


def breakdown_bars(timed: Timed) -> Figure | None:
    """Where the time goes by kind of operator, for a few cells spread over the grid."""
    every: Sequence[BreakdownRow | ProjectionRow]
    every = timed.result.breakdown if isinstance(timed.result, TtftResult) else timed.result.rows
    cells = list(dict.fromkeys(row.cell for row in every))
    if not cells:
        return None
    chosen = cells[:: max(1, -(-len(cells) // MOST_CELLS))]
    names = ordered(row.architecture for row in every)
    rows = [row for row in every if row.cell in chosen]
    rows.sort(key=lambda row: (chosen.index(row.cell), names.index(row.architecture)))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=1.3 + 0.22 * len(rows) + 0.12 * len(chosen))
        axes = drawing.add_subplot()
        places = [index + 0.6 * chosen.index(row.cell) for index, row in enumerate(rows)]
        left = [0.0] * len(rows)
        for part, shade in PARTS.items():
            values = [getattr(row.breakdown_ms, part) for row in rows]
            if any(values):
                axes.barh(places, values, left=left, color=shade, height=0.85, label=readable(part))
                left = [start + value for start, value in zip(left, values, strict=True)]
        axes.set_yticks(places, [f"{_words(row.cell)}  {readable(row.architecture)}" for row in rows], fontsize=7)
        axes.set_ylim(places[-1] + 0.7, -0.7)
        axes.set_xlabel(axis("time (ms)", (row.kind for row in rows)))
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "All-reduce is the part that nothing hides. Counterpart of the paper's Figures 6 and 7."
        caption += f" {len(chosen)} of {len(cells)} cells." if len(chosen) < len(cells) else ""
        title = f"Where the time goes, {timed.title}"
        return finish(drawing, f"breakdown_{timed.key}", title, caption, (row.kind for row in rows), timed.demo)


def _words(cell: Cell) -> str:
    return f"{cell.size} @ {cell.context}, {place(cell)}"


def timeline(timed: Timed) -> Figure | None:
    """Two lanes per architecture, compute above communication, of the first cell that the file keeps."""
    kept = [one for one in timed.result.timelines if one.events]
    if not kept:
        return None
    first = kept[0]
    names = ordered(one.architecture for one in kept if one.cell == first.cell)
    drawn = sorted((one for one in kept if one.cell == first.cell), key=lambda one: names.index(one.architecture))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=1.1 + 0.75 * len(drawn))
        axes = drawing.add_subplot()
        for index, one in enumerate(drawn):
            _lanes(axes, index * LANES, one.events)
        places = [index * LANES + 0.45 for index in range(len(drawn))]
        axes.set_yticks(places, [readable(one.architecture) for one in drawn])
        axes.set_ylim(len(drawn) * LANES - 1, -0.7)
        axes.set_xlabel(axis("time (ms)", (one.kind for one in drawn)))
        axes.grid(axis="y", visible=False)
        used = {event.part for one in drawn for event in one.events}
        for part in PARTS:
            if part in used:
                axes.barh(0, 0, color=PARTS[part], label=readable(part))
        drawing.legend(loc="outside upper center", ncols=7, fontsize=8)
        extent = f"first {first.layers} layers" if first.layers else f"one forward of rank {first.rank}"
        caption = f"{_words(first.cell)}, {extent}; upper lane: compute, lower lane: communication. "
        caption += "" if timed.is_projected else "All-reduce in the upper lane is waiting. "
        caption += "Ranks exceed cores. " if first.oversubscribed else ""
        caption += "Counterpart of the paper's Figure 3."
        title, kinds = f"What runs when, {timed.title}", (one.kind for one in drawn)
        return finish(drawing, f"timeline_{timed.key}", title, caption, kinds, timed.demo)


def _lanes(axes: Any, top: float, events: Sequence[TimelineEvent]) -> None:
    start = min(event.begin_ms for event in events)
    for lane, at in (("compute", top), ("communication", top + 0.95)):
        chosen = [event for event in events if event.lane == lane]
        axes.barh(
            [at] * len(chosen),
            [event.end_ms - event.begin_ms for event in chosen],
            left=[event.begin_ms - start for event in chosen],
            height=0.85,
            color=[PARTS[event.part] for event in chosen],
            edgecolor=INK,
            linewidth=0.15,
        )
