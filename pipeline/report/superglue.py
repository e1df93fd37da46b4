"""The paper's Table 3 with ours beside it, paired differences, and tables of other harness tasks."""

from typing import Any

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Body, Inputs
from pipeline.report.quality import architecture
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
COMPARABLE = "full"  # label of data that are the whole validation sets
PUBLISHED_SHOTS = "superglue_3shot"


def task_tables(inputs: Inputs, reference: ReferenceConfig, demo: str) -> list[Table]:
    """For each evaluation that was run: scores with the paper's rows beside ours, and paired differences."""
    tables = []
    for name, bodies in inputs.tasks.items():
        tables.append(_scores(inputs, name, bodies, reference, demo))
        differences = _differences(inputs.scale, name, bodies, demo)
        if differences:
            tables.append(differences)
    return tables


def _scores(inputs: Inputs, name: str, bodies: dict[str, Body], reference: ReferenceConfig, demo: str) -> Table:
    quoted = reference.superglue_3shot if name == PUBLISHED_SHOTS else {}
    rows = [
        _row(inputs.scale, model, body, reference, quoted) | {"architecture": architecture(inputs, model)}
        for model, body in bodies.items()
    ]
    rows += [_level(bodies, key, words) for key, words in (("chance", "guessing"), ("majority", "majority class"))]
    rows += [
        {"kind": "quoted", "model": model, "source": reference.source, **scores} for model, scores in quoted.items()
    ]
    unit = "%" if all(body.get("unit") == "percent" for body in bodies.values()) else ""
    columns = [
        Column("model", "Model"),
        *(Column(task, TASKS.get(task, task), unit, "number", 2, f"{task}_error") for task in _ordered(bodies, quoted)),
        Column("mean", "Mean", unit, "number", 2, "mean_error"),
        Column("mean_difference", "Mean against baseline", "points", "signed", 2, "mean_difference_error"),
        Column("published_mean", "Paper's mean", unit, "number", 2),
        Column("data", "Data"),
    ]
    kept = [row for row in rows if len(row) > 2]
    return Table(name, _title(name), columns, kept, _verdict(bodies, quoted, reference), _notes(name, bodies), demo)


def _ordered(bodies: dict[str, Body], quoted: dict[str, dict[str, float]]) -> list[str]:
    rows = [*(body["tasks"] for body in bodies.values()), *quoted.values()]
    tasks = list(dict.fromkeys(task for row in rows for task in row if task != "mean"))
    return [task for task in TASKS if task in tasks] + [task for task in tasks if task not in TASKS]


def _title(name: str) -> str:
    if not name.startswith("superglue_"):
        return f"Harness tasks ({name})"
    shots = name.removeprefix("superglue_").removesuffix("shot")
    number = {"superglue_3shot": " (paper's Table 3)", "superglue_0shot": " (paper's Table 2)"}.get(name, "")
    return f"SuperGLUE, {shots}-shot{number}"


def is_comparable(body: Body) -> bool:
    """Whether the data are the whole validation sets."""
    return bool(body.get("data") == COMPARABLE)


def _row(scale: str, model: str, body: Body, reference: ReferenceConfig, quoted: dict[str, dict[str, float]]) -> Row:
    row: Row = {"kind": "measured", "scale": scale, "model": model}
    if body.get("data"):
        row["data"] = body["data"] if is_comparable(body) else f"{body['data']}: not comparable"
    for task, found in body["tasks"].items():
        row[task] = found.get("score")
        row[f"{task}_error"] = found.get("standard_error")
    row["mean"], row["mean_error"] = body.get("mean"), body.get("mean_standard_error")
    gap = _gaps(body).get("mean", {})
    row["mean_difference"], row["mean_difference_error"] = gap.get("difference"), gap.get("standard_error")
    published = reference.superglue_rows.get(model) if quoted else None
    if published in quoted:
        row["published_row"], row["published_mean"] = published, quoted[published].get("mean")
    return row


def _level(bodies: dict[str, Body], key: str, words: str) -> Row:
    """What guessing, or always the commonest answer, scores."""
    row: Row = {"kind": "counted", "model": words}
    for body in bodies.values():
        row |= {task: found[key] for task, found in body["tasks"].items() if found.get(key) is not None}
        if body.get(f"mean_{key}") is not None:
            row["mean"] = body[f"mean_{key}"]
    return row


def chance(bodies: dict[str, Body]) -> dict[str, float]:
    """Percent that guessing scores by task, where a result gives it."""
    return {key: value for key, value in _level(bodies, "chance", "").items() if key not in ("kind", "model")}


def _gaps(body: Body) -> dict[str, dict[str, Any]]:
    """Paired differences against the baseline by task, "mean" among them."""
    found = (body.get("baseline") or {}).get("differences")
    return found if isinstance(found, dict) else {}


def _differences(scale: str, name: str, bodies: dict[str, Body], demo: str) -> Table | None:
    """Ours minus the baseline on the same questions."""
    rows: list[Row] = [
        {
            "kind": "measured",
            "scale": scale,
            "model": model,
            "baseline": body["baseline"].get("model"),
            "task": "mean" if task == "mean" else TASKS.get(task, task),
            **{key: gap.get(key) for key in ("difference", "standard_error", "low", "high", "p_value")},
            "told_from_noise": None if gap.get("is_noise") is None else not gap["is_noise"],
        }
        for model, body in bodies.items()
        for task, gap in _gaps(body).items()
    ]
    if not rows:
        return None
    columns = [
        Column("model", "Model"),
        Column("baseline", "Baseline"),
        Column("task", "Task"),
        Column("difference", "Difference", "points", "signed", 2, "standard_error"),
        Column("low", "95% from", "points", "signed", 2),
        Column("high", "to", "points", "signed", 2),
        Column("p_value", "p", "", "number", 3),
        Column("told_from_noise", "Told from noise", format="yes_no"),
    ]
    notes = (
        "Paired on the same questions; p by flipping signs. With many tasks some p below 0.05 are to be expected.",
    )
    return Table(f"{name}_differences", f"{_title(name)}: paired differences", columns, rows, notes=notes, demo=demo)


def _verdict(bodies: dict[str, Body], quoted: dict[str, dict[str, float]], reference: ReferenceConfig) -> str:
    sentences = []
    for model, body in bodies.items():
        sentence = (body.get("baseline") or {}).get("sentence")
        if sentence:
            sentences.append(str(sentence))
        published = quoted.get(reference.superglue_rows.get(model, ""), {}).get("mean")
        mean, error = body.get("mean"), body.get("mean_standard_error")
        if published is None or mean is None or not error or not is_comparable(body):
            continue
        apart = abs(mean - published) / error
        words = "agrees with" if apart < 2 else "differs from"
        sentences.append(
            f"{model}: mean {mean:.2f} ± {error:.2f} {words} the paper's {published:.2f} ({apart:.1f} standard errors)."
        )
    if quoted and not all(is_comparable(body) for body in bodies.values()):
        meanings = {str(body.get("data_meaning") or body.get("data")) for body in bodies.values() if body.get("data")}
        sentences.append("Not comparable with the paper's rows: " + "; ".join(sorted(meanings)) + ".")
    return " ".join(dict.fromkeys(sentences))


def _notes(name: str, bodies: dict[str, Body]) -> list[str]:
    notes = []
    if name.startswith("superglue"):
        notes.append("± is one standard error. Accuracy, except ReCoRD: F1; the mean is unweighted.")
    notes += [str(body["published_note"]) for body in bodies.values() if body.get("published_note")]
    for body in bodies.values():
        for task, found in body["tasks"].items():
            notes += [f"{TASKS.get(task, task)}: {note}" for note in found.get("notes", [])]
    return list(dict.fromkeys(notes))
