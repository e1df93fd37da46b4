"""The body of a task result file: what was measured, on what, beside what."""

from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import PipelineError
from pipeline.evaluation.scoring.source import ModelSource, find_source
from pipeline.evaluation.superglue import data as superglue_data
from pipeline.evaluation.superglue.data import MEANING, Label, TaskData
from pipeline.evaluation.superglue.tasks import TASKS
from pipeline.results.tasks import (
    TaskRecord,
    against_baseline,
    against_published,
    read_result,
    summarise,
)

PUBLISHED_SHOTS = 3


def find_inputs(config: Config) -> tuple[ModelSource, list[TaskData]]:
    """The model and the examples, checked. Raises one PipelineError that names everything missing of both."""
    wanted = config.evaluation.tasks or [task.name for task in TASKS]
    tasks = [task for task in TASKS if task.name in wanted]
    errors: list[PipelineError] = []
    source, data = None, None
    try:
        source = find_source(config)
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
    config: Config, source: ModelSource, records: list[TaskRecord], label: Label, cost: dict[str, Any]
) -> dict[str, Any]:
    """Everything a SuperGLUE result file says but its provenance."""
    settings = config.evaluation
    if settings.limit and label == "full":
        label = "partial"
    body = {
        **_head(config, source),
        "data": label,
        "data_meaning": MEANING[label],
        **summarise(records, settings.bootstrap_iters, settings.seed),
        "bootstrap_iters": settings.bootstrap_iters,
        "scoring": cost,
        "published_note": _published_note(settings.n_shot),
    }
    baseline = baseline_of(config)
    found = (
        read_result(Path(config.paths.results, config.scale.name, baseline, f"{settings.name}.json"))
        if baseline
        else None
    )
    if found is not None:
        body["baseline"] = against_baseline(body, found)
    row = config.reference.superglue_rows.get(config.model.name)
    if row and settings.n_shot == PUBLISHED_SHOTS:
        body["published"] = against_published(body, config.reference.superglue_3shot[row], row)
    return body


def named_body(config: Config, source: ModelSource, tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The result file of any harness tasks."""
    return {**_head(config, source), "unit": "the harness' own", "tasks": tasks}


def baseline_of(config: Config) -> str | None:
    """The model that differences are taken against: evaluation.baseline, or the experiment's first model."""
    chosen = config.evaluation.baseline
    if chosen is None and config.experiment is not None:
        chosen = config.experiment.models[config.scale.name][0]
    return None if chosen == config.model.name else chosen


def _head(config: Config, source: ModelSource) -> dict[str, Any]:
    settings = config.evaluation
    return {
        "kind": "measured",
        "model": config.model.name,
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
