"""The body of a task result file: what was measured, on what, beside what."""

from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import PipelineError, ResultError
from pipeline.evaluation.scoring.source import ModelSource, find_source
from pipeline.evaluation.superglue import data as superglue_data
from pipeline.evaluation.superglue.data import MEANING, Label, TaskData
from pipeline.evaluation.superglue.tasks import TASKS
from pipeline.results.file import read
from pipeline.results.tasks import (
    ScoringCost,
    TaskRecord,
    TaskRow,
    TasksResult,
    against_baseline,
    against_published,
    summarise,
)

PUBLISHED_SHOTS = 3


def find_inputs(config: Config, trained: Path) -> tuple[ModelSource, list[TaskData]]:
    """The model and the examples, checked. Raises one PipelineError that names everything missing of both."""
    wanted = config.evaluation.tasks or [task.name for task in TASKS]
    tasks = [task for task in TASKS if task.name in wanted]
    errors: list[PipelineError] = []
    source, data = None, None
    try:
        source = find_source(config, trained)
    except PipelineError as error:
        errors.append(error)
    try:
        data = superglue_data.load(tasks, config.evaluation.data_dir, config.evaluation.n_shot)
    except PipelineError as error:
        errors.append(error)
    if source is None or data is None:
        raise type(errors[0])("\n".join(str(error) for error in errors))
    return source, data


def complete(
    config: Config,
    source: ModelSource,
    records: list[TaskRecord],
    label: Label,
    cost: dict[str, Any],
    baseline: Path | None = None,
) -> TasksResult:
    """Everything a SuperGLUE result file says but its provenance; `baseline` is the file differences are against."""
    settings = config.evaluation
    if settings.limit and label == "full":
        label = "partial"
    result = TasksResult(
        **_head(config, source),
        **summarise(records, settings.bootstrap_iters, settings.seed),
        data=label,
        data_meaning=MEANING[label],
        bootstrap_iters=settings.bootstrap_iters,
        scoring=ScoringCost(**cost),
        published_note=_published_note(settings.n_shot),
    )
    found = _baseline(baseline) if baseline else None
    row = config.reference.superglue_rows.get(config.model.name) if settings.n_shot == PUBLISHED_SHOTS else None
    return result.model_copy(
        update={
            "baseline": against_baseline(result, found) if found else None,
            "published": against_published(result, config.reference.superglue_3shot[row], row) if row else None,
        }
    )


def named(config: Config, source: ModelSource, tasks: dict[str, dict[str, Any]]) -> TasksResult:
    """The result file of any harness tasks."""
    rows = {name: TaskRow(kind="measured", standard_error_by="harness", **entry) for name, entry in tasks.items()}
    return TasksResult(**_head(config, source), unit="the harness' own", tasks=rows)


def _baseline(path: Path) -> TasksResult | None:
    """The baseline's result; None where it cannot be read: the report compares later what it can."""
    try:
        return read(path, TasksResult)
    except (FileNotFoundError, ResultError):
        return None


def _head(config: Config, source: ModelSource) -> dict[str, Any]:
    settings = config.evaluation
    return {
        "kind": "measured",
        "model": config.model.name,
        "architecture": config.model.architecture,
        "evaluation": settings.name,
        "scale": config.scale.name,
        "n_shot": settings.n_shot,
        "seed": settings.seed,
        "limit": settings.limit,
        "tp_size": config.cluster.evaluation_tp_size,
        "checkpoint_sha256": source.key(),
    }


def _published_note(n_shot: int) -> str:
    if n_shot == PUBLISHED_SHOTS:
        return "Published values for these tasks are three-shot (Table 3 of the paper)."
    if n_shot == 0:
        return "The paper's zero-shot table (Table 2) is not published as numbers: there is nothing to compare with."
    return f"The paper publishes nothing {n_shot}-shot: there is nothing to compare with."
