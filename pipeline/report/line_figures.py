"""Figures of TTFT and speedup as lines: over the number of ranks (the paper's Figure 2) and over the link."""

import math
from collections.abc import Iterable, Mapping

import matplotlib

from pipeline.config.link import bits_per_second
from pipeline.report.inputs import ordered
from pipeline.report.speed_figures import MAX_PANELS, left_out, of_one_batch, place
from pipeline.report.style import SETTINGS, Figure, axis, canvas, finish, readable
from pipeline.report.timed import Timed
from pipeline.results import BASELINE, BOUND, ProjectionResult, TtftResult
from pipeline.results.cell import NO_LINK

PERCENT_TICKS = (-50, -25, 0, 25, 50, 100, 200, 400, 800, 1600, 3200)  # on a logarithmic axis
LOG_ABOVE = 200  # percent: speedups beyond this would flatten all others on a linear axis
COLUMNS = 3
Point = tuple[float, float, float, float]  # x, y, and the ends of y's interval
Panels = dict[str, dict[str, list[Point]]]  # heading -> architecture -> points


def against_tp(timed: Timed) -> Figure | None:
    """TTFT over the number of ranks: the paper's Figure 2."""
    every = [row for row in of_one_batch(timed.result.rows) if row.link != NO_LINK]
    sizes = list(dict.fromkeys(row.size for row in every))
    size = sizes[min(1, len(sizes) - 1)] if sizes else ""
    link = next((row.link for row in every if row.size == size), None)
    rows = [row for row in every if (row.size, row.link) == (size, link)]
    ticks = sorted({row.tp_size for row in rows})
    if len(ticks) < 2:
        return None
    panels: Panels = {}
    for row in rows:
        point = (row.tp_size, row.milliseconds, row.milliseconds, row.milliseconds)
        panels.setdefault(f"{size}, {row.context} tokens", {}).setdefault(row.architecture, []).append(point)
    crowded = sorted({row.tp_size for row in rows if row.is_crowded})
    caption = f"Link {link}. " if link else ""
    caption += f"Ranks exceed cores at TP {', '.join(map(str, crowded))}. " if crowded else ""
    caption += "Counterpart of the paper's Figure 2."
    title, labels = f"TTFT against ranks, {timed.title}", ("ranks (TP)", "TTFT (ms)")
    ticked = {float(tick): str(tick) for tick in ticks}
    return _lines(timed, f"ttft_tp_{timed.key}", title, panels, labels, caption, (row.kind for row in rows), ticked)


def against_link(timed: Timed) -> Figure | None:
    """Speedup over the link, with 95% intervals; links in the order of their rates, unlimited ones last."""
    if not isinstance(timed.result, TtftResult):
        return None
    rows = [row for row in timed.result.rows if row.link != NO_LINK and row.architecture != BASELINE]
    links = sorted({row.link for row in rows if row.link}, key=lambda link: bits_per_second(link) or math.inf)
    if len(links) < 2:
        return None
    panels: Panels = {}
    for row in rows:
        if row.link is None or row.speedup is None:
            continue
        ends = (row.speedup_low, row.speedup_high)
        low, high = (row.speedup if end is None else end for end in ends)
        crowded = ", ranks exceed cores" if row.is_crowded else ""
        heading = f"{row.size} @ {row.context}, {place(row.cell.model_copy(update={'link': None}))}{crowded}"
        point = (links.index(row.link), 100 * row.speedup, 100 * low, 100 * high)
        panels.setdefault(heading, {}).setdefault(row.architecture, []).append(point)
    title, labels = f"Speedup against the link, {timed.title}", ("link", "speedup over standard (%)")
    caption = "Bands are 95% intervals. The paper conjectures what its link does; this varies it."
    ticked = {float(at): link for at, link in enumerate(links)}
    return _lines(
        timed, f"speedup_link_{timed.key}", title, panels, labels, caption, (row.kind for row in rows), ticked
    )


def link_sweep(timed: Timed) -> Figure | None:
    """Projected geometric mean speedup over the link's bandwidth."""
    rows = timed.result.link_sweep if isinstance(timed.result, ProjectionResult) else []
    if len({row.link_bandwidth_bytes_per_s for row in rows}) < 2:
        return None
    panels: Panels = {"": {}}
    for row in rows:
        value = 100 * row.geomean_speedup
        point = (row.link_bandwidth_bytes_per_s / 1e9, value, value, value)
        panels[""].setdefault(row.architecture, []).append(point)
    labels = ("link bandwidth (GB/s per direction)", "geometric mean speedup (%)")
    caption = "Over the whole grid, everything but the link's bandwidth unchanged. The paper does not vary its link."
    title, kinds = f"Speedup against the link, {timed.title}", (row.kind for row in rows)
    return _lines(timed, f"link_sweep_{timed.name}", title, panels, labels, caption, kinds)


def _lines(
    timed: Timed,
    name: str,
    title: str,
    panels: Panels,
    labels: tuple[str, str],
    caption: str,
    kinds: Iterable[str],
    ticks: Mapping[float, str] | None = None,
) -> Figure:
    """Panels of lines. Without `ticks` the horizontal axis is logarithmic; so is the vertical one of high speedups."""
    chosen, kinds = list(panels.items())[:MAX_PANELS], tuple(kinds)
    names = ordered(name for _, lines in chosen for name in lines)
    rows = math.ceil(len(chosen) / COLUMNS)
    columns = math.ceil(len(chosen) / rows)
    most = max(point[1] for _, lines in chosen for points in lines.values() for point in points)
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=max(5.4, 3.2 * columns), height=0.5 + 2.7 * rows)
        first = None
        for index, (heading, lines) in enumerate(chosen):
            axes = drawing.add_subplot(rows, columns, index + 1, sharey=first)
            first = first or axes
            for architecture in names:
                if architecture not in lines:
                    continue
                x, y, low, high = zip(*sorted(lines[architecture]), strict=True)
                style = ":" if architecture == BOUND else "--" if timed.is_projected else "-"
                shade = timed.inputs.colours[architecture]
                axes.plot(x, y, style, marker="o", markersize=4, color=shade, label=readable(architecture))
                axes.fill_between(x, low, high, color=shade, alpha=0.15, linewidth=0)
            if "%" in labels[1] and most > LOG_ABOVE:
                axes.set_yscale("symlog", linthresh=50, linscale=0.45)
                low_end, high_end = axes.get_ylim()
                shown = [tick for tick in PERCENT_TICKS if low_end <= tick <= high_end]
                axes.set_yticks(shown, [f"{tick:+d}" if tick else "0" for tick in shown])
            if ticks is None:
                axes.set_xscale("log")
            else:
                is_words = not all(words.isdigit() for words in ticks.values())
                axes.set_xticks(list(ticks), list(ticks.values()), rotation=35 if is_words else 0)
            axes.minorticks_off()
            axes.set_title(heading)
            axes.set_xlabel(labels[0])
            if index % columns == 0:
                axes.set_ylabel(axis(labels[1], kinds))
        handles = {str(line.get_label()): line for axes in drawing.axes for line in axes.get_lines()}
        drawing.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=4, fontsize=8)
        return finish(drawing, name, title, caption + left_out(len(panels)), kinds, timed.demo)
