"""The paper's Table 3 with ours beside it, and tables of other harness tasks."""

from typing import Any

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Body, Inputs
from pipeline.report.table import Column, Row, Table

TASKS: dict[str, str] = {
    "boolq": "BoolQ",
    "sglue_rte": "RTE",
    "cb": "CB",
    "copa": "COPA",
    "record": "ReCoRD",
    "wic": "WiC",
    "wsc": "WSC",
    "multirc": "MultiRC",
}
COMPARABLE = "full"  # label of a task's data when it is the whole validation set
PUBLISHED_SHOTS = "superglue_3shot"


def task_tables(inputs: Inputs, reference: ReferenceConfig, demo: str) -> list[Table]:
    """One table for each evaluation that was run, ours first, then the paper's rows where it has some."""
    return [_table(inputs, name, bodies, reference, demo) for name, bodies in inputs.tasks.items()]


def _table(inputs: Inputs, name: str, bodies: dict[str, Body], reference: ReferenceConfig, demo: str) -> Table:
    quoted = reference.superglue_3shot if name == PUBLISHED_SHOTS else {}
    rows = [_row(inputs.scale, model, body, reference, quoted) for model, body in bodies.items()]
    rows += [
        {"kind": "quoted", "model": model, "source": reference.source, **scores} for model, scores in quoted.items()
    ]
    tasks = list(dict.fromkeys(task for body in bodies.values() for task in body["tasks"]))
    ordered = [task for task in TASKS if task in tasks] + [task for task in tasks if task not in TASKS]
    columns = [
        Column("model", "Model"),
        *(Column(task, TASKS.get(task, str(task)), "%", "number", 2, f"{task}_error") for task in ordered),
        Column("mean", "Mean", "%", "number", 2, "mean_error"),
        Column("mean_difference", "Mean against baseline", "points", "signed", 2, "mean_difference_error"),
        Column("published_mean", "Paper's mean", "%", "number", 2),
        Column("data", "Data"),
    ]
    is_superglue = name.startswith("superglue")
    title = _title(name) if is_superglue else f"Harness tasks ({name})"
    notes = ["± is one standard error. Accuracy, except ReCoRD: F1; the mean is unweighted."] if is_superglue else []
    if is_superglue and not quoted:
        notes.append("The paper's values for this number of shots are not published as numbers: none are shown.")
    return Table(name, title, columns, rows, _verdict(bodies, quoted, reference), [*notes, *_notes(bodies)], demo)


def _title(name: str) -> str:
    shots = name.removeprefix("superglue_").removesuffix("shot")
    number = {"superglue_3shot": " (paper's Table 3)", "superglue_0shot": " (paper's Table 2)"}.get(name, "")
    return f"SuperGLUE, {shots}-shot{number}"


def label(body: Body) -> str | None:
    """How far the data compare with published values: full where every task's data are."""
    own = body.get("data")
    if isinstance(own, str):
        return own
    labels = {task.get("data") for task in body["tasks"].values()}
    if labels == {COMPARABLE}:
        return COMPARABLE
    return ", ".join(sorted(str(found) for found in labels if found and found != COMPARABLE)) or None


def _row(scale: str, model: str, body: Body, reference: ReferenceConfig, quoted: dict[str, dict[str, float]]) -> Row:
    row: Row = {"kind": "measured", "scale": scale, "model": model, "data": label(body)}
    for task, found in body["tasks"].items():
        row[task] = _points(found.get("score"))
        row[f"{task}_error"] = _points(found.get("standard_error"))
    row["mean"] = _points(_mean(body))
    row["mean_error"] = _points(_mean_error(body))
    gap = _difference(body)
    row["mean_difference"] = _points(gap.get("difference"))
    row["mean_difference_error"] = _points(gap.get("standard_error"))
    row["published_row"] = reference.superglue_rows.get(model) if quoted else None
    row["published_mean"] = quoted[row["published_row"]].get("mean") if row["published_row"] in quoted else None
    return row


def _mean(body: Body) -> float | None:
    mean = body.get("mean")
    return mean.get("score") if isinstance(mean, dict) else mean


def _mean_error(body: Body) -> float | None:
    mean = body.get("mean")
    return mean.get("standard_error") if isinstance(mean, dict) else body.get("mean_standard_error")


def _difference(body: Body) -> dict[str, Any]:
    """The paired difference of the means against the baseline, where the stage wrote one."""
    mean = body.get("mean")
    for candidate in (mean.get("difference") if isinstance(mean, dict) else None, body.get("mean_difference")):
        if isinstance(candidate, dict):
            return candidate
    return {}


def _points(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _verdict(bodies: dict[str, Body], quoted: dict[str, dict[str, float]], reference: ReferenceConfig) -> str:
    sentences = []
    for model, body in bodies.items():
        sentence = body.get("verdict") or _difference(body).get("sentence")
        if sentence:
            sentences.append(str(sentence))
        published = quoted.get(reference.superglue_rows.get(model, ""), {}).get("mean")
        mean, error = _points(_mean(body)), _points(_mean_error(body))
        if published is None or mean is None or error is None or label(body) != COMPARABLE:
            continue
        apart = abs(mean - published) / error if error else float("inf")
        words = "agrees with" if apart < 2 else "differs from"
        sentences.append(
            f"{model}: mean {mean:.2f} ± {error:.2f} {words} the paper's {published:.2f} ({apart:.1f} errors)."
        )
    if quoted and any(label(body) != COMPARABLE for body in bodies.values()):
        sentences.append("Not comparable with the paper: the data are not the whole validation sets.")
    return " ".join(dict.fromkeys(sentences))


def _notes(bodies: dict[str, Body]) -> list[str]:
    found = [str(note) for body in bodies.values() for note in body.get("notes", [])]
    return list(dict.fromkeys(found))


def chance(bodies: dict[str, Body]) -> dict[str, float]:
    """Percent that guessing scores by task, where a result gives it."""
    found: dict[str, float] = {}
    for body in bodies.values():
        for task, scores in body["tasks"].items():
            level = _points(scores.get("chance"))
            if level is not None:
                found[task] = level
    return found
