"""Figures of a study: loss against tokens, parameters and TTFT, paired differences, and the search behind them."""

import math
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.report.inputs import Inputs
from pipeline.report.same_tokens import place
from pipeline.report.search_figures import LABELS, log_ticks, searched
from pipeline.report.study import Study, bars, cells, count, trade_words
from pipeline.report.style import INK, SETTINGS, Figure, axis, canvas, finish, readable
from pipeline.results.quality import Law, QualityCell

APART = 0.012  # of an axis' width between arms at one place, so that error bars do not hide one another
WORDS = {"parameters": "parameters", "layer_parameters": "parameters in layers", "tokens": "training tokens"}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
BARS: dict[str, Any] = {"capsize": 2, "elinewidth": 0.9, "linewidth": 1.2, "markersize": 5.5, "markeredgewidth": 0.8}


def figures(inputs: Inputs, study: Study) -> list[Figure]:
    """Every figure that the study's files fill."""
    draw: tuple[Callable[[Inputs, Study], Figure | None], ...] = (
        differences,
        against_tokens,
        against_parameters,
    )
    found = [figure(inputs, study) for figure in draw]
    found += [trade(inputs, study, stem) for stem in study.trades]
    sizes = dict.fromkeys(trial.size for trial in study.search.trials) if study.search else {}
    return [*(figure for figure in found if figure), *(searched(inputs, study, size) for size in sizes)]


def against_tokens(inputs: Inputs, study: Study) -> Figure | None:
    """Loss over training tokens at the central size, with intervals over seeds."""
    quality = study.quality
    ticks = sorted({cell.tokens for cell in _told(study) if quality and cell.size == quality.central_size})
    if quality is None or len(ticks) < 2:
        return None
    own = [cell for cell in _told(study) if cell.size == quality.central_size]
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=7.2, height=4.6)
        axes = drawing.add_subplot()
        apart = _apart(study, ticks[0], ticks[-1])
        for arm in study.arms:
            points = sorted((cell for cell in own if cell.arm == arm), key=lambda cell: cell.tokens)
            _points(axes, study, inputs, [(cell.tokens * apart[arm], cell) for cell in points])
        log_ticks(axes, ticks)
        axes.set_xlabel(f"{WORDS['tokens']}, size {quality.central_size}")
        axes.set_ylabel(axis("validation loss (nats per token)", (cell.kind for cell in own)))
        drawing.legend(loc="outside upper center", ncols=4, **LABELS)
        caption = (
            "Mean over seeds; bars are 95% intervals of the seeds alone. Arms at one token count are drawn a little "
            f"apart. A unigram model of the same text has {quality.unigram_loss_nats:.2f} nats."
        )
        kinds = (cell.kind for cell in own)
        name, title = f"loss_tokens_{study.name}", f"Loss against tokens, {study.name}"
        return finish(drawing, name, title, caption, kinds, inputs.demo, study.name)


def against_parameters(inputs: Inputs, study: Study) -> Figure | None:
    """Loss over parameters at the central token count, counted both ways, with the law of each arm."""
    quality = study.quality
    if quality is None:
        return None
    own = [cell for cell in _told(study) if cell.tokens == quality.central_tokens]
    if len({cell.size for cell in own}) < 2:
        return None
    models = {(model.arm, model.size): model for model in quality.models}
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.8, height=4.0 + 0.16 * len(study.arms))
        first = None
        for index, counted in enumerate(("parameters", "layer_parameters")):
            axes = drawing.add_subplot(1, 2, index + 1, sharey=first)
            first = first or axes
            held = [law for law in quality.laws if law.fixed.replace(",", "") == f"{quality.central_tokens} tokens"]
            laws = {law.arm: law for law in held if law.against == counted}
            points = {
                arm: sorted(
                    ((getattr(models[arm, cell.size], counted), cell) for cell in own if cell.arm == arm),
                    key=lambda point: point[0],
                )
                for arm in study.arms
            }
            every = [at for arm in study.arms for at, _ in points[arm]]
            apart = _apart(study, min(every), max(every))
            handles = []
            for arm in (arm for arm in study.arms if points[arm]):
                law, look = laws.get(arm), study.drawn(arm, inputs.colours)
                _points(axes, study, inputs, [(at * apart[arm], cell) for at, cell in points[arm]], joined=False)
                if law:
                    _law(axes, law, points[arm][0][0], points[arm][-1][0], apart[arm], look)
                label = f"{readable(arm)}: {law.exponent.text()}" if law else f"{readable(arm)}: no law"
                handles.append(Line2D([], [], label=label, markersize=5, **look))
            log_ticks(axes, _round_ticks(every))
            axes.set_xlabel(axis(WORDS[counted], ["counted"]))
            if index == 0:
                axes.set_ylabel(axis("validation loss (nats per token)", (cell.kind for cell in own)))
            axes.legend(handles=handles, title="arm: exponent (95%)", title_fontsize=7.5, **BELOW, **LABELS)
        caption = (
            f"After {quality.central_tokens:,} tokens; mean over seeds with 95% intervals, arms drawn a little apart. "
            "Lines are the fitted laws loss = a · x^(−exponent), which say nothing beyond the sizes shown."
        )
        name, title = f"loss_parameters_{study.name}", f"Loss against parameters, {study.name}"
        kinds = [*(cell.kind for cell in own), "counted"]
        return finish(drawing, name, title, caption, kinds, inputs.demo, study.name)


def differences(inputs: Inputs, study: Study) -> Figure | None:
    """Paired differences to the baseline at the central size: the central token count, and the largest."""
    quality = study.quality
    if quality is None:
        return None
    own = [cell for cell in quality.cells if cell.size == quality.central_size and cell.arm != quality.baseline]
    most = max((cell.tokens for cell in own), default=0)
    counts = list(dict.fromkeys((quality.central_tokens, most)))
    shown = [(cell, cell.difference_nats) for cell in own if cell.tokens in counts and cell.difference_nats]
    if not shown:
        return None
    arms = [arm for arm in study.arms if any(cell.arm == arm for cell, _ in shown)]
    kinds = list(dict.fromkeys(cell.kind for cell, _ in shown))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=7.2, height=1.3 + 0.34 * len(arms))
        first = None
        for index, tokens in enumerate(counts):
            axes = drawing.add_subplot(1, len(counts), index + 1, sharey=first, sharex=first)
            first = first or axes
            axes.axvline(0, color=INK, linewidth=0.9)
            for cell, gap in shown:
                if cell.tokens == tokens:
                    look = {**study.drawn(cell.arm, inputs.colours), "linestyle": "none"}
                    axes.errorbar(gap.value, arms.index(cell.arm), xerr=bars(gap), **look, **BARS)
            axes.set_title(f"{quality.central_size}, {count(tokens)} tokens")
            axes.set_yticks(range(len(arms)), [readable(arm) for arm in arms])
            axes.set_ylim(len(arms) - 0.5, -0.5)
            axes.tick_params(axis="y", labelleft=index == 0)
            axes.set_xlabel(axis(f"loss minus {readable(quality.baseline)}'s (nats)", kinds))
        lost = [cell for cell in own if cell.tokens in counts and not cell.difference_nats]
        names = ", ".join(f"{readable(cell.arm)} at {count(cell.tokens)}" for cell in lost)
        caption = "Differences of runs with the same seed; bars are 95% intervals over seeds. Right of 0: worse."
        caption += f" Too few pairs that ended: {names}." if lost else ""
        title = f"Against {readable(quality.baseline)} on the same tokens, {study.name}"
        return finish(drawing, f"differences_{study.name}", title, caption, kinds, inputs.demo, study.name)


def trade(inputs: Inputs, study: Study, stem: str) -> Figure | None:
    """Loss over TTFT of one trade file, a panel for each kind of time; an arm's sizes are joined."""
    shown = study.trades[stem]
    if not shown.rows:
        return None
    kinds = list(dict.fromkeys(row.kind for row in shown.rows))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=max(5.4, 4.3 * len(kinds)), height=4.6)
        first = None
        for index, kind in enumerate(kinds):
            axes = drawing.add_subplot(1, len(kinds), index + 1, sharey=first)
            first = first or axes
            rows = [row for row in shown.rows if row.kind == kind]
            for arm in study.arms:
                own = [row for row in rows if row.arm == arm]
                if not own:
                    continue
                x, y = [row.ttft_ms.value for row in own], [row.loss_nats.value for row in own]
                ends = [_beside([bars(getattr(row, key)) for row in own]) for key in ("ttft_ms", "loss_nats")]
                look = study.drawn(arm, inputs.colours)
                axes.errorbar(x, y, xerr=ends[0], yerr=ends[1], label=readable(arm), **look, **BARS)
                if arm == study.baseline:
                    for row in own:
                        at = (row.ttft_ms.value, row.loss_nats.value)
                        axes.annotate(row.size, at, (5, 5), textcoords="offset points", fontsize=8)
            log_ticks(axes, _round_ticks([row.ttft_ms.value for row in rows]), "{:.3g}".format)
            axes.set_xlabel(axis("TTFT (ms)", [kind]))
            if index == 0:
                axes.set_ylabel(axis("validation loss (nats per token)", ["measured"]))
        handles, labels = drawing.axes[0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside upper center", ncols=4, **LABELS)
        settings = "; ".join(f"{one.kind}: {place(one)}" for one in shown.settings)
        caption = (
            f"Times {settings}. Losses after {shown.central_tokens:,} tokens. Lines join an arm's sizes, named "
            f"at {readable(study.baseline)}'s points. Bars are 95% intervals; a projected time has none. An arm below "
            f"{readable(study.baseline)}'s line is the better model of its speed."
        )
        name, title = f"{stem}_{study.name}", f"Loss against TTFT, {study.name}{trade_words(stem)}"
        return finish(drawing, name, title, caption, [*kinds, "measured"], inputs.demo, study.name)


def _told(study: Study) -> list[QualityCell]:
    """Cells that have a loss."""
    return [cell for cell in cells(study.quality) if cell.loss_nats] if study.quality else []


def _points(
    axes: Any, study: Study, inputs: Inputs, points: list[tuple[float, QualityCell]], joined: bool = True
) -> None:
    """Mean losses of one arm with their intervals."""
    losses = [(at, cell.loss_nats) for at, cell in points if cell.loss_nats]
    if not losses:
        return
    arm = points[0][1].arm
    look = study.drawn(arm, inputs.colours)
    if not joined:
        look["linestyle"] = "none"
    ends = _beside([bars(loss) for _, loss in losses])
    axes.errorbar(
        [at for at, _ in losses], [loss.value for _, loss in losses], yerr=ends, label=readable(arm), **look, **BARS
    )


def _law(axes: Any, law: Law, low: float, high: float, apart: float, look: dict[str, Any]) -> None:
    """The law from `low` to `high`, as far aside as its arm's points."""
    x = [low * (high / low) ** (step / 24) for step in range(25)]
    y = [law.scale.value * at**-law.exponent.value for at in x]
    line = {key: value for key, value in look.items() if key != "marker"}
    axes.plot([at * apart for at in x], y, linewidth=1.1, **line)


def _beside(ends: list[list[list[float]]]) -> list[list[float]]:
    """Error bars of single points, (2, 1) each, as those of a series, (2, points)."""
    return [[one[side][0] for one in ends] for side in (0, 1)]


def _apart(study: Study, low: float, high: float) -> dict[str, float]:
    """A factor for each arm on a logarithmic axis from `low` to `high`."""
    wide, middle = math.log(high / low), (len(study.arms) - 1) / 2
    return {arm: math.exp(APART * wide * (index - middle)) for index, arm in enumerate(study.arms)}


def _round_ticks(values: list[float]) -> list[float]:
    """Round numbers among the values of a logarithmic axis."""
    low, high = min(values), max(values)
    found = LogLocator(subs=(1, 2, 5)) if high > 8 * low else MaxNLocator(5)
    return [float(tick) for tick in found.tick_values(low, high) if 0.95 * low <= tick <= 1.05 * high] or [low]
