"""Figures of a search: loss over the learning rate, a panel an arm, a line an initial scale."""

import math
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.lines import Line2D

from pipeline.report.inputs import Inputs
from pipeline.report.study import LINES, Study, count
from pipeline.report.style import INK, SETTINGS, Figure, axis, canvas, finish, readable
from pipeline.results.search import SearchTrial

PANEL_COLUMNS = 3
EDGE = 0.94  # of the axes' height: where a mark without a loss stands
LABELS: dict[str, Any] = {"fontsize": 7.5, "handlelength": 3.2}
STOPPED: dict[str, Any] = {"marker": "v", "mfc": "white", "markersize": 5}
DIVERGED: dict[str, Any] = {"marker": "X", "markersize": 6}
CHOSEN: dict[str, Any] = {"marker": "o", "mfc": "none", "markersize": 10}


def searched(inputs: Inputs, study: Study, size: str) -> Figure:
    """The search at one size."""
    search = study.search
    assert search is not None
    trials = [trial for trial in search.trials if trial.size == size]
    arms = [arm for arm in study.arms if any(trial.arm == arm for trial in trials)]
    rates = sorted({trial.learning_rate for trial in trials})
    scales = sorted({trial.init_std for trial in trials})
    ended = [trial.loss_nats for trial in trials if trial.loss_nats is not None]
    reach = max(max(ended) - min(ended), 0.2) if ended else 0.0
    window = (min(ended) - 0.1 * reach, max(ended) + 0.35 * reach) if ended else None  # stopped ones may lie far above
    columns = min(PANEL_COLUMNS, len(arms))
    rows = math.ceil(len(arms) / columns)
    best = {recipe.arm: recipe for recipe in search.recipes if recipe.size == size}
    kinds = list(dict.fromkeys(trial.kind for trial in trials))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=max(5.4, 2.9 * columns), height=1.0 + 2.0 * rows)
        first = None
        for index, arm in enumerate(arms):
            axes = drawing.add_subplot(rows, columns, index + 1, sharex=first, sharey=first)
            first = first or axes
            colour = study.drawn(arm, inputs.colours)["color"]
            for scale in scales:
                own = [trial for trial in trials if (trial.arm, trial.init_std) == (arm, scale)]
                _trials(axes, own, {"color": colour, **_of_scale(scales.index(scale))}, window)
            if recipe := best.get(arm):
                axes.plot(recipe.learning_rate, recipe.loss_nats, color=INK, zorder=4, **CHOSEN)
            axes.set_title(readable(arm), fontsize=8)
            if window:
                axes.set_ylim(*window)
            log_ticks(axes, rates, "{:g}".format)
            axes.tick_params(axis="x", labelrotation=35, labelsize=7, labelbottom=index + columns >= len(arms))
            axes.tick_params(axis="y", labelleft=index % columns == 0)
        drawing.supxlabel("peak learning rate", fontsize=9)
        drawing.supylabel(axis("validation loss (nats per token)", kinds).replace("\n", ", "), fontsize=9)
        _legend(drawing, scales)
        caption = (
            f"Size {size}, one seed, {search.search_tokens:,} tokens a trial that is not stopped. A stopped trial "
            "stands at its last loss, after fewer tokens, or at the upper edge where that is beyond; a diverged one "
            "has no loss and stands at the upper edge."
        )
        many = len({trial.size for trial in search.trials}) > 1
        name = f"search_{study.name}" + (f"_{size}" if many else "")
        title = f"Search of recipes, {study.name}, size {size}"
        return finish(drawing, name, title, caption, kinds, inputs.demo, study.name)


def log_ticks(axes: Any, ticks: list[Any], words: Callable[[float], str] = count) -> None:
    """A logarithmic horizontal axis with ticks where there are points."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, [words(tick) for tick in ticks])
    axes.minorticks_off()


def _trials(axes: Any, trials: list[SearchTrial], look: dict[str, Any], window: tuple[float, float] | None) -> None:
    """Trials of one arm and initial scale."""
    ended = sorted((trial.learning_rate, trial.loss_nats) for trial in trials if trial.loss_nats is not None)
    if ended:
        axes.plot(*zip(*ended, strict=True), markersize=4, linewidth=1.2, **look)
    edge = {"transform": axes.get_xaxis_transform()}  # x in data, y in the axes' height
    for trial in trials:
        mark = {"color": look["color"], **(DIVERGED if trial.outcome == "diverged" else STOPPED)}
        if trial.outcome == "diverged":
            axes.plot(trial.learning_rate, EDGE, **mark, **edge)
        elif trial.outcome == "stopped" and trial.rungs:
            last = trial.rungs[-1].loss_nats
            is_inside = window is None or last < window[1]
            axes.plot(trial.learning_rate, last if is_inside else EDGE, **mark, **({} if is_inside else edge))


def _of_scale(index: int) -> dict[str, Any]:
    return {"marker": ("o", "D", "s", "P")[index % 4], "linestyle": LINES[index % len(LINES)]}


def _legend(drawing: Any, scales: list[float]) -> None:
    """Marks and lines in the page's ink: colours are the panels'."""
    looks = [(f"initial scale {scale:g}", {"markersize": 4, **_of_scale(index)}) for index, scale in enumerate(scales)]
    marks = (("stopped", STOPPED), ("diverged", DIVERGED), ("chosen", CHOSEN))
    looks += [(word, {"linestyle": "none", **look}) for word, look in marks]
    handles = [Line2D([], [], color=INK, label=word, **look) for word, look in looks]
    drawing.legend(handles=handles, loc="outside upper center", ncols=len(handles), **LABELS)
