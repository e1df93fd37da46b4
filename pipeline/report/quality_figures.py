"""Figures of training and quality."""

from itertools import count

import matplotlib

from pipeline.report.inputs import Inputs
from pipeline.report.quality import architecture
from pipeline.report.style import SETTINGS, Figure, canvas, colour, finish
from pipeline.report.superglue import TASKS
from pipeline.report.table import Row, Table

LINES = ("-", "--", ":", "-.")


def training_curves(inputs: Inputs, demo: str) -> Figure | None:
    """Training loss over tokens seen, validation losses as points, the unigram loss as a line."""
    curves = {model: body for model, body in inputs.training.items() if body.get("curve")}
    if not curves:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas()
        axes = drawing.add_subplot()
        styles: dict[str, count[int]] = {}
        for index, (model, body) in enumerate(curves.items()):
            kind = architecture(inputs, model) or model
            line = LINES[next(styles.setdefault(kind, count())) % len(LINES)]
            shade = colour(kind, index)
            points = [(row["step"], row["loss_nats"]) for row in body["curve"]]
            axes.plot(*zip(*points, strict=True), line, color=shade, linewidth=1.2, alpha=0.75, label=model)
            checks = [(row["step"], row["loss_nats"]) for row in body.get("validation", [])]
            if checks:
                axes.plot(*zip(*checks, strict=True), "o", color=shade, markersize=4)
        unigrams = {body["unigram_loss_nats"] for body in curves.values() if body.get("unigram_loss_nats") is not None}
        for unigram in unigrams:
            axes.axhline(unigram, color="#d55e00", linestyle=":", linewidth=1, label="unigram model")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("loss (nats per token)")
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "Lines: training loss of the batch; points: validation loss."
        return finish(drawing, "training_curves", "Training curves", caption, "measured", demo)


def perplexity_bars(table: Table) -> Figure | None:
    """Losses as points with two standard errors: a bar that starts at zero would hide every difference."""
    rows = [row for row in table.rows if row["kind"] == "measured" and row.get("loss_nats") is not None]
    if not rows:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(height=0.9 + 0.38 * len(rows))
        axes = drawing.add_subplot()
        for index, row in enumerate(rows):
            error = row.get("standard_error_nats")
            axes.errorbar(
                row["loss_nats"],
                index,
                xerr=None if error is None else 2 * error,
                fmt="o",
                capsize=4,
                color=colour(row.get("architecture"), index),
            )
        axes.set_yticks(range(len(rows)), [row["model"] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("validation loss (nats per token)")
        caption = "Loss over the whole validation split; bars are two standard errors. Perplexity is exp(loss)."
        return finish(drawing, "perplexity", "Validation loss", caption, "measured", table.demo)


def superglue_bars(table: Table, chance: dict[str, float]) -> Figure | None:
    """Scores by task with their errors, and the score of guessing where the results give one."""
    measured = [row for row in table.rows if row["kind"] == "measured"]
    tasks = [task for task in (*TASKS, "mean") if any(row.get(task) is not None for row in measured)]
    names = {row.get("published_row") for row in measured}
    quoted = [row for row in table.rows if row["kind"] == "quoted" and row["model"] in names]
    rows: list[Row] = [*measured, *quoted]
    if not measured or len(tasks) < 2:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4)
        axes = drawing.add_subplot()
        width = 0.8 / len(rows)
        for index, row in enumerate(rows):
            places = [position - 0.4 + width * (index + 0.5) for position in range(len(tasks))]
            errors = [2 * (row.get(f"{task}_error") or 0) for task in tasks]
            is_quoted = row["kind"] == "quoted"
            axes.bar(
                places,
                [row.get(task) or 0 for task in tasks],
                width,
                yerr=None if is_quoted else errors,
                capsize=2,
                color=colour(row.get("architecture"), index),
                alpha=0.5 if is_quoted else 1,
                hatch="////" if is_quoted else None,
                label=f"{row['model']} (paper)" if is_quoted else row["model"],
                error_kw={"elinewidth": 0.8},
            )
        for position, task in enumerate(tasks):
            if task in chance:
                axes.hlines(chance[task], position - 0.4, position + 0.4, colors="#d55e00", linestyles=":")
        axes.set_xticks(range(len(tasks)), [TASKS.get(task, task) for task in tasks])
        axes.set_ylabel("score (%)")
        axes.set_ylim(0, 100)
        drawing.legend(loc="outside upper center", ncols=4, fontsize=8)
        caption = "Bars on top are two standard errors" + ("; dotted lines are guessing." if chance else ".")
        kind = "measured, quoted" if quoted else "measured"
        return finish(drawing, table.name, table.title, caption, kind, table.demo)
