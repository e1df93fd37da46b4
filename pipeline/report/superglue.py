"""The paper's Table 3 with ours beside it, paired differences, and tables of other harness tasks."""

from collections.abc import Mapping

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Inputs, overrides
from pipeline.report.table import Column, Row, Table, flat
from pipeline.results import TasksResult

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
Scores = Mapping[str, TasksResult]
Quoted = Mapping[str, Mapping[str, float]]


def task_tables(inputs: Inputs, reference: ReferenceConfig) -> list[Table]:
    """For each evaluation that was run: scores with the paper's rows beside ours, and paired differences."""
    tables = []
    for name, results in inputs.tasks.items():
        tables.append(_scores(inputs, name, results, reference))
        differences = _differences(inputs, name, results)
        if differences:
            tables.append(differences)
    return tables


def _scores(inputs: Inputs, name: str, results: Scores, reference: ReferenceConfig) -> Table:
    quoted: Quoted = reference.superglue_3shot if name == PUBLISHED_SHOTS else {}
    rows = [_row(inputs.scale, model, result) for model, result in results.items()]
    levels = (_level(results, key, words) for key, words in (("chance", "guessing"), ("majority", "majority class")))
    rows += [level for level in levels if len(level) > 2]
    rows += [
        {"kind": "quoted", "model": model, "source": reference.source, **scores} for model, scores in quoted.items()
    ]
    unit = "%" if all(result.unit == "percent" for result in results.values()) else ""
    scored = [task for scores in (*(one.tasks for one in results.values()), *quoted.values()) for task in scores]
    tasks = [task for task in dict.fromkeys((*TASKS, *scored)) if task in scored and task != "mean"]
    columns = [
        Column("model", "Model"),
        *(Column(task, TASKS.get(task, task), unit, "number", 2, f"{task}_error") for task in tasks),
        Column("mean", "Mean", unit, "number", 2, "mean_error"),
        Column("mean_difference", "Mean against baseline", "points", "signed", 2, "mean_difference_error"),
        Column("published_mean", "Paper's mean", unit, "number", 2),
        Column("data", "Data"),
    ]
    verdict, notes = _verdict(results, quoted), _notes(name, results)
    return Table(name, _title(name), columns, rows, verdict, notes, inputs.demo)


def _title(name: str) -> str:
    """Of an evaluation; one with overridden settings keeps its file's name, so that it is not taken for the paper's."""
    if not name.startswith("superglue_") or overrides(name):
        return f"Harness tasks ({name})"
    shots = name.removeprefix("superglue_").removesuffix("shot")
    number = {"superglue_3shot": " (paper's Table 3)", "superglue_0shot": " (paper's Table 2)"}.get(name, "")
    return f"SuperGLUE, {shots}-shot{number}"


def _row(scale: str, model: str, result: TasksResult) -> Row:
    row: Row = {"kind": result.kind, "scale": scale, "model": model, "architecture": result.architecture}
    if result.data:
        row["data"] = result.data if result.data == COMPARABLE else f"{result.data}: not comparable"
    for task, found in result.tasks.items():
        row |= {task: found.score, f"{task}_error": found.standard_error}
    row |= {"mean": result.mean, "mean_error": result.mean_standard_error}
    gap = result.baseline.differences.get("mean") if result.baseline else None
    if gap:
        row |= {"mean_difference": gap.difference, "mean_difference_error": gap.standard_error}
    if result.published:
        mean = result.published.tasks.get("mean")
        row |= {"published_row": result.published.row, "published_mean": mean.published if mean else None}
    return row


def _level(results: Scores, key: str, words: str) -> Row:
    """What guessing, or always the commonest answer, scores."""
    row: Row = {"kind": "counted", "model": words}
    for result in results.values():
        scores = {task: getattr(found, key) for task, found in result.tasks.items()}
        scores["mean"] = getattr(result, f"mean_{key}")
        row |= {task: score for task, score in scores.items() if score is not None}
    return row


def chance(results: Scores) -> dict[str, float]:
    """Percent that guessing scores by task, where a result gives it."""
    return {key: value for key, value in _level(results, "chance", "").items() if key not in ("kind", "model")}


def _differences(inputs: Inputs, name: str, results: Scores) -> Table | None:
    """Ours minus the baseline on the same questions."""
    rows: list[Row] = [
        {
            **flat(gap),
            "kind": result.kind,
            "scale": inputs.scale,
            "model": model,
            "baseline": result.baseline.model,
            "task": TASKS.get(task, task),
            "told_from_noise": not gap.is_noise,
        }
        for model, result in results.items()
        if result.baseline
        for task, gap in result.baseline.differences.items()
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
    heading = f"{_title(name)}: paired differences"
    return Table(f"{name}_differences", heading, columns, rows, notes=notes, demo=inputs.demo)


def _verdict(results: Scores, quoted: Quoted) -> str:
    sentences = [result.baseline.sentence for result in results.values() if result.baseline]
    for model, result in results.items():
        mean = result.published.tasks.get("mean") if result.published and result.published.comparable else None
        if mean and mean.standard_error:
            sentences.append(
                f"{model}: mean {mean.ours:.2f} ± {mean.standard_error:.2f} "
                f"{'differs from' if mean.flagged else 'agrees with'} the paper's {mean.published:.2f} "
                f"({abs(mean.difference) / mean.standard_error:.1f} standard errors)."
            )
    if quoted and any(result.data != COMPARABLE for result in results.values()):
        meanings = {result.data_meaning or result.data for result in results.values() if result.data != COMPARABLE}
        words = "; ".join(sorted(meaning for meaning in meanings if meaning)) or "not the whole validation sets"
        sentences.append(f"Not comparable with the paper's rows: {words}.")
    return " ".join(dict.fromkeys(sentences))


def _notes(name: str, results: Scores) -> list[str]:
    notes = []
    if name.startswith("superglue"):
        notes.append("± is one standard error. Accuracy, except ReCoRD: F1; the mean is unweighted.")
    for result in results.values():
        notes += [result.published_note] if result.published_note else []
        notes += [f"{TASKS.get(task, task)}: {note}" for task, found in result.tasks.items() for note in found.notes]
    return list(dict.fromkeys(notes))
