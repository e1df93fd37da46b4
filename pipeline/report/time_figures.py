"""Figures of what a forward spends its time on: counterparts of the paper's Figures 3, 6 and 7."""

from typing import Any

import matplotlib

from pipeline.report.inputs import Body
from pipeline.report.speed_figures import cells_of
from pipeline.report.style import INK, PARTS, SETTINGS, Figure, canvas, colour, finish, readable
from pipeline.report.table import Row


def breakdown_bars(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """Where the time goes by operator: the paper's Figures 6 and 7."""
    key = "breakdown_ms" if any(row.get("breakdown_ms") for row in body.get("rows", [])) else "breakdown"
    cells = cells_of([row for row in body.get("rows", []) if isinstance(row.get(key), dict)], key)
    if not cells:
        return None
    chosen = _spread(cells)
    bars = [(place, architecture, chosen[place][architecture]) for place in chosen for architecture in chosen[place]]
    parts = [part for part in PARTS if any(row[key].get(part) for _, _, row in bars)]
    parts += sorted({part for _, _, row in bars for part in row[key]} - set(PARTS))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=1.3 + 0.22 * len(bars) + 0.1 * len(chosen))
        axes = drawing.add_subplot()
        position, ticks = 0.0, []
        before = None
        for place, architecture, row in bars:
            position += 1.6 if before not in (None, place) else 1.0
            before = place
            left = 0.0
            for index, part in enumerate(parts):
                value = row[key].get(part) or 0.0
                axes.barh(position, value, left=left, color=PARTS.get(part, colour(None, index)), height=0.85)
                left += value
            size, context, tp_size, _ = place
            ticks.append((position, f"{size} @ {context}, TP {tp_size}  {readable(architecture)}"))
        for index, part in enumerate(parts):
            axes.barh(0, 0, color=PARTS.get(part, colour(None, index)), label=readable(part))
        axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks], fontsize=7)
        axes.set_ylim(position + 0.7, 0.3)
        axes.set_xlabel(f"time, {kind} (ms)")
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "All reduce is the exposed part alone. Counterpart of the paper's Figures 6 and 7."
        return finish(drawing, f"breakdown_{name}", f"Where the time goes: {name}", caption, kind, demo)


def _spread(cells: dict[tuple[Any, ...], dict[str, Row]]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """At most four cells, spread over the grid."""
    places = list(cells)
    step = max(1, (len(places) + 3) // 4)
    return {place: cells[place] for place in places[::step]}


def timeline(name: str, drawings: list[Body], kind: str, demo: str) -> Figure | None:
    """Two lanes per architecture, compute above communication: the paper's Figure 3."""
    drawings = [drawing for drawing in drawings if drawing.get("spans")]
    if not drawings:
        return None
    with matplotlib.rc_context(SETTINGS):
        canvas_ = canvas(width=8.4, height=1.1 + 0.75 * len(drawings))
        axes = canvas_.add_subplot()
        for index, drawing in enumerate(drawings):
            start = min(span["start_ms"] for span in drawing["spans"])
            for span in drawing["spans"]:
                is_compute = span["stream"] == "compute"
                category = span.get("category") or ("gemm" if is_compute else "all_reduce")
                shade = PARTS.get(category, colour(None, 0)) if is_compute else PARTS["all_reduce"]
                length = span["end_ms"] - span["start_ms"]
                at = index * 2.6 + (0 if is_compute else 0.95)
                axes.barh(
                    at, length, left=span["start_ms"] - start, height=0.85, color=shade, edgecolor=INK, linewidth=0.2
                )
        axes.set_yticks(
            [index * 2.6 + 0.45 for index in range(len(drawings))], [readable(d["architecture"]) for d in drawings]
        )
        axes.set_ylim(len(drawings) * 2.6 - 1, -0.7)
        axes.set_xlabel(f"time, {kind} (ms)")
        used = {span.get("category") for drawing in drawings for span in drawing["spans"]}
        for part in PARTS:
            if part in used:
                axes.barh(0, 0, color=PARTS[part], label=readable(part))
        canvas_.legend(loc="outside upper center", ncols=4, fontsize=8)
        first = drawings[0]
        layers = f"first {first['layers']} layers" if first.get("layers") else "one forward"
        where = f"{first.get('size')} @ {first.get('context')} tokens, TP {first.get('tp_size')}, {layers}"
        caption = f"{where}; upper lane: compute, lower lane: communication. Counterpart of the paper's Figure 3."
        return finish(canvas_, f"timeline_{name}", f"What runs when: {name}", caption, kind, demo)
