"""Figures of Time To First Token: counterparts of the paper's Figures 4 and 5, and how well projections fit."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.ticker import LogLocator

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import ordered
from pipeline.report.style import ARCHITECTURES, HATCH, INK, SETTINGS, Figure, axis, canvas, finish, readable
from pipeline.report.timed import Timed
from pipeline.results import ProjectionResult
from pipeline.results.cell import NO_LINK, Cell, TimedRow
from pipeline.results.ttft import TtftRow

MAX_PANELS = 6
LOG_ABOVE = 20.0  # slowest over fastest: a linear axis would hide the fast ones


def of_one_batch(rows: Sequence[TimedRow]) -> list[TimedRow]:
    """The rows of the least batch."""
    least = min((row.batch_size for row in rows), default=1)
    return [row for row in rows if row.batch_size == least]


def place(cell: Cell) -> str:
    """A cell's ranks and link in words."""
    link = {None: "", NO_LINK: ", compute alone"}.get(cell.link, f", {cell.link}")
    return f"TP {cell.tp_size}{link}" + (f", batch {cell.batch_size}" if cell.batch_size > 1 else "")


def left_out(count: int) -> str:
    """What a caption says where there are more panels than are drawn."""
    return f" The first {MAX_PANELS} of {count} panels; the table holds all." if count > MAX_PANELS else ""


def ttft_bars(timed: Timed) -> Figure | None:
    """TTFT by architecture with 95% intervals, a panel per number of ranks and link: the paper's Figures 4 and 5."""
    rows = of_one_batch(timed.result.rows)
    if not rows:
        return None
    names = ordered(row.architecture for row in rows)
    panels: dict[str, list[TimedRow]] = {}
    for row in rows:
        panels.setdefault(place(row.cell) + (", ranks exceed cores" if row.is_crowded else ""), []).append(row)
    chosen = list(panels.items())[:MAX_PANELS]
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=0.6 + 2.3 * len(chosen))
        for index, (heading, own) in enumerate(chosen):
            axes = drawing.add_subplot(len(chosen), 1, index + 1)
            _bars(axes, own, names, timed.inputs.colours)
            axes.set_title(heading)
        for name in names:
            axes.bar(0, 0, color=timed.inputs.colours[name], label=readable(name))
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "" if timed.is_projected else "Median over repeats; lines on top are 95% intervals. "
        caption += "Hatched: not all of it was measured. " if any(row.kind != "measured" for row in rows) else ""
        caption += f"Counterpart of the paper's Figures 4 and 5, which show speedups.{left_out(len(panels))}"
        title = f"Time To First Token, {timed.title}"
        return finish(drawing, f"ttft_{timed.key}", title, caption, (row.kind for row in rows), timed.demo)


def _bars(axes: Any, rows: Sequence[TimedRow], names: list[str], colours: dict[str, str]) -> None:
    groups = list(dict.fromkeys((row.size, row.context) for row in rows))
    width = 0.84 / len(names)
    for row in rows:
        error = None
        if isinstance(row, TtftRow) and row.ttft_ms_low is not None and row.ttft_ms_high is not None:
            ends = (row.milliseconds - row.ttft_ms_low, row.ttft_ms_high - row.milliseconds)
            error = [[max(0.0, end)] for end in ends]
        axes.bar(
            groups.index((row.size, row.context)) - 0.42 + width * (names.index(row.architecture) + 0.5),
            row.milliseconds,
            width,
            yerr=error,
            capsize=2,
            color=colours[row.architecture],
            hatch=None if row.kind == "measured" else HATCH,
            error_kw={"elinewidth": 0.8},
        )
    times = [row.milliseconds for row in rows]
    if max(times) > LOG_ABOVE * min(times):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    axes.grid(axis="x", visible=False)
    between = "\n" if len(groups) > 8 else " "
    axes.set_xticks(range(len(groups)), [f"{size}{between}@ {context}" for size, context in groups], fontsize=7.5)
    axes.set_ylabel(axis("TTFT (ms)", (row.kind for row in rows)))


def scatter(timed: Timed, reference: ReferenceConfig) -> Figure | None:
    """Projected against published milliseconds; filled points were used to fit."""
    if not isinstance(timed.result, ProjectionResult):
        return None
    points = [(row, row.published_ms) for row in timed.result.rows if row.published_ms is not None]
    if not points:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=5.4, height=4.6)
        axes = drawing.add_subplot()
        published = [quoted for _, quoted in points]
        ends = [min(published) * 0.8, max(published) * 1.25]
        axes.plot(ends, ends, color=INK, linewidth=0.8)
        axes.fill_between(ends, [0.8 * e for e in ends], [1.2 * e for e in ends], color=INK, alpha=0.08, linewidth=0)
        for name in ordered(row.architecture for row, _ in points):
            shade = timed.inputs.colours[name]
            for fitted, words in ((True, "fitted"), (False, "held out")):
                own = [
                    (at, row.projected_ms) for row, at in points if row.architecture == name and row.fitted == fitted
                ]
                if own:
                    face = shade if fitted else "none"
                    axes.plot(
                        *zip(*own, strict=True), "o", color=shade, mfc=face, label=f"{name}, {words}", markersize=5
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("published TTFT (ms)")
        axes.set_ylabel("projected TTFT (ms)")
        axes.legend(fontsize=8)
        caption = f"Published: {reference.source}. The band is ±20%."
        title = f"Projection against publication, {timed.title}"
        return finish(drawing, f"scatter_{timed.name}", title, caption, ("projected", "quoted"))


def published_speedups(reference: ReferenceConfig, papers: Timed | None) -> Figure:
    """The paper's own Figures 4 and 5, with our projection of the same rows beside them."""
    rows = papers.result.rows if papers else []
    projected = {(row.size, row.context, row.tp_size): row.speedup for row in rows if row.architecture == "kraken"}
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=3.4)
        tp_sizes = sorted({row.tp_size for row in reference.ttft})
        first = None
        for panel, tp_size in enumerate(tp_sizes):
            axes = drawing.add_subplot(1, len(tp_sizes), panel + 1, sharey=first)
            first = first or axes
            own = [row for row in reference.ttft if row.tp_size == tp_size]
            for at, row in enumerate(own):
                bars = {
                    "parallel, quoted": row.standard_ms / row.parallel_ms - 1,
                    "kraken, quoted": row.standard_ms / row.kraken_ms - 1,
                    "kraken, projected": projected.get((row.size, row.context, row.tp_size)),
                }
                for index, (words, value) in enumerate(bars.items()):
                    if value is not None:
                        axes.bar(
                            at + 0.28 * (index - 1),
                            100 * value,
                            0.26,
                            color=ARCHITECTURES[words.partition(",")[0]],
                            alpha=0.45 if index == 2 else 1,
                            hatch=HATCH if index == 2 else None,
                            label=words if panel == at == 0 else None,
                        )
            axes.set_xticks(range(len(own)), [f"{row.size}\n@{row.context}" for row in own], fontsize=6.5)
            axes.grid(axis="x", visible=False)
            axes.set_title(f"TP {tp_size}")
            if panel == 0:
                axes.set_ylabel("speedup over standard (%)")
                drawing.legend(loc="outside upper center", ncols=3, fontsize=8)
        caption = f"The paper's Figures 4 and 5, drawn from its Tables 6 and 7 ({reference.source})."
        kinds = ("quoted", "projected") if projected else ("quoted",)
        return finish(drawing, "published_speedups", "Published speedups", caption, kinds)
