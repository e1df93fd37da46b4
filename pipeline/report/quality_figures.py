"""Figures of training and quality."""

import matplotlib

from pipeline.report.inputs import Inputs
from pipeline.report.style import HATCH, INK, SETTINGS, Figure, canvas, finish
from pipeline.report.superglue import TASKS, chance
from pipeline.report.table import Table, is_measured

LINES = ("-", "--", ":", "-.")


def training_curves(inputs: Inputs) -> Figure | None:
    """Training loss over steps, validation losses as points, the unigram loss as a line."""
    curves = {model: result for model, result in inputs.training.items() if result.curve}
    if not curves:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas()
        axes = drawing.add_subplot()
        drawn: list[str] = []  # architectures: a second model of one takes another line
        for model, result in curves.items():
            line, shade = LINES[drawn.count(result.architecture) % len(LINES)], inputs.colours[result.architecture]
            drawn.append(result.architecture)
            points = [(point.step, point.loss_nats) for point in result.curve]
            axes.plot(*zip(*points, strict=True), line, color=shade, linewidth=1.2, alpha=0.75, label=model)
            checks = [(point.step, point.loss_nats) for point in result.validation]
            if checks:
                axes.plot(*zip(*checks, strict=True), "o", color=shade, markersize=4)
        unigrams = {result.unigram_loss_nats for result in curves.values()}
        for unigram in (loss for loss in unigrams if loss is not None):
            axes.axhline(unigram, color=INK, linestyle=":", linewidth=1, label="unigram model")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats per token)")
        drawing.legend(loc="outside upper center", ncols=3, fontsize=8)
        caption = "Lines: training loss of the batch; points: validation loss."
        kinds = [result.kind for result in curves.values()]
        return finish(drawing, "training_curves", "Training curves", caption, kinds, inputs.demo)


def perplexity_points(inputs: Inputs) -> Figure | None:
    """Losses as points with two standard errors: a bar that starts at zero would hide every difference."""
    results = inputs.perplexity
    if not results:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(height=0.9 + 0.38 * len(results))
        axes = drawing.add_subplot()
        for index, result in enumerate(results.values()):
            error = result.standard_error_nats
            bars = None if error is None else 2 * error
            shade = inputs.colours[result.architecture]
            axes.errorbar(result.loss_nats, index, xerr=bars, fmt="o", capsize=4, color=shade)
        axes.set_yticks(range(len(results)), list(results))
        axes.set_ylim(len(results) - 0.5, -0.5)
        axes.set_xlabel("validation loss (nats per token)")
        caption = "Loss over the whole validation split; bars are two standard errors. Perplexity is exp(loss)."
        kinds = [result.kind for result in results.values()]
        return finish(drawing, "perplexity", "Validation loss", caption, kinds, inputs.demo)


def superglue_bars(inputs: Inputs, table: Table) -> Figure | None:
    """Scores by task with their errors, published ones beside ours, and what guessing scores."""
    ours = [row for row in table.rows if is_measured(row)]
    tasks = [task for task in (*TASKS, "mean") if any(row.get(task) is not None for row in ours)]
    owners = {row.get("published_row"): row["architecture"] for row in ours}
    rows = [*ours, *(row for row in table.rows if row["kind"] == "quoted" and row["model"] in owners)]
    if len(tasks) < 2:
        return None
    guessing = chance(inputs.tasks[table.name])
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4)
        axes = drawing.add_subplot()
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            is_quoted = row["kind"] == "quoted"
            axes.bar(
                [position - 0.4 + width * (index + 0.5) for position in range(len(tasks))],
                [row.get(task) or 0 for task in tasks],
                width,
                yerr=None if is_quoted else [2 * (row.get(f"{task}_error") or 0) for task in tasks],
                capsize=2,
                color=inputs.colours[owners[row["model"]] if is_quoted else row["architecture"]],
                alpha=0.5 if is_quoted else 1,
                hatch=HATCH if is_quoted else None,
                label=f"{row['model']} (paper)" if is_quoted else row["model"],
                error_kw={"elinewidth": 0.8},
            )
        for position, task in enumerate(tasks):
            if task in guessing:
                axes.hlines(guessing[task], position - 0.4, position + 0.4, colors=INK, linestyles=":")
        axes.set_xticks(range(len(tasks)), [TASKS.get(task, task) for task in tasks])
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("score (%)")
        axes.set_ylim(0, 100)
        drawing.legend(loc="outside upper center", ncols=3, fontsize=8)
        caption = "Bars on top are two standard errors" + ("; dotted lines are guessing." if guessing else ".")
        return finish(drawing, table.name, table.title, caption, [row["kind"] for row in rows], table.demo)
