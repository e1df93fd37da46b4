"""From what each task scored to the result file: standard errors, chance, differences, verdicts in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.results import scores
from pipeline.results.file import Result, Row, Typed
from pipeline.results.kinds import Kind
from pipeline.results.scores import Difference, Outcomes

PERCENT = 100.0
MEAN = "mean"


class TaskRow(Row):
    """One task. Scores are in the file's `unit`."""

    title: str | None = Field(None, description="the task's name for readers (SuperGLUE)")
    metric: str | None = Field(description="what `score` is; null: the harness gave nothing")
    score: float | None = Field(description="the task's score")
    standard_error: float | None = Field(description="of the score; null where it cannot be known")
    standard_error_by: Literal["formula", "bootstrap", "harness"] = Field(description="where standard_error comes from")
    chance: float | None = Field(None, description="what guessing scores (SuperGLUE)")
    majority: float | None = Field(None, description="what the commonest answer scores, where there are classes")
    metrics: dict[str, float] = Field(default_factory=dict, description="every metric that the harness gave")
    metric_standard_errors: dict[str, float | None] = Field(default_factory=dict, description="their standard errors")
    items: int = Field(description="questions scored")
    clusters: int | None = Field(None, description="independent groups of items (SuperGLUE)")
    requests: int = Field(description="texts scored")
    truncated_requests: int = Field(description="requests that lost their beginning at block_size")
    task_version: str = Field(description="version of the task's definition")
    data: str | None = Field(None, description="full, partial, own or shipped (SuperGLUE)")
    notes: list[str] = Field(default_factory=list, description="what to know about the data, in words")
    seconds: float | None = Field(None, description="what scoring took (harness tasks)")


class ItemOutcomes(Typed):
    """Every item's outcome, so that differences to other models can be taken later."""

    task: str = Field(description="task")
    items: str = Field(description="a hash over the items: equal for the same questions")
    values: list[float] = Field(description="outcome of each item, 0 to 1")
    clusters: list[int] = Field(description="cluster of each item, from 0")

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(np.array(self.values, dtype=np.float64), np.array(self.clusters, dtype=np.int64))


class PairedDifference(Typed):
    """Ours minus the baseline's on the same items, in percent."""

    difference: float = Field(description="percent")
    standard_error: float | None = Field(description="percent")
    low: float = Field(description="lower end of the 95% interval, percent")
    high: float = Field(description="upper end, percent")
    p_value: float = Field(description="two-sided, by flipping signs of clusters")
    is_noise: bool = Field(description="cannot be told from noise")


class BaselineComparison(Typed):
    """Paired differences against another model's result."""

    model: str = Field(description="the model that differences are taken against")
    differences: dict[str, PairedDifference] = Field(description="by task, `mean` among them if all are shared")
    sentence: str = Field(description="what they tell, in words")


class PublishedDifference(Typed):
    """Ours beside a published score. The published one is a single run, so ours carries the error."""

    ours: float = Field(description="percent")
    published: float = Field(description="percent, quoted")
    difference: float = Field(description="ours − published, percent")
    standard_error: float | None = Field(description="of ours, percent")
    flagged: bool = Field(description="further apart than two standard errors")


class PublishedComparison(Typed):
    """Ours beside a row of the publication."""

    row: str = Field(description="name of the published row")
    comparable: bool = Field(description="whether the data are the whole validation sets")
    tasks: dict[str, PublishedDifference] = Field(description="by task, `mean` among them")


class ScoringCost(Typed):
    """What scoring took this time."""

    seconds: float = Field(description="seconds")
    requests: int = Field(description="texts scored")
    kept_tasks: int = Field(description="tasks whose scores were there before")


class TasksResult(Result):
    """<evaluation>.json: one model's scores on SuperGLUE, or on any tasks of the harness."""

    file_name: ClassVar[str] = "results/<scale>/<model>/<evaluation>.json"
    command: ClassVar[str] = "python -m stages.evaluate_superglue model=NAME evaluation=NAME"
    schema_name: Literal["tasks"] = "tasks"
    schema_version: Literal[1] = 1
    kind: Kind = Field(description="where the scores come from")
    model: str = Field(description="model config")
    architecture: str = Field(description="architecture")
    evaluation: str = Field(description="evaluation config")
    scale: str = Field(description="demo, small_gpu or paper")
    n_shot: int = Field(description="examples in a prompt")
    seed: int = Field(description="of examples and resampling")
    limit: int | None = Field(description="items a task at most; null: all")
    tp_size: int = Field(description="ranks that scored")
    checkpoint_sha256: str = Field(description="names the weights")
    unit: Literal["percent", "the harness' own"] = Field(description="unit of every score")
    tasks: dict[str, TaskRow] = Field(description="by task")
    mean: float | None = Field(None, description="unweighted mean of the tasks (SuperGLUE)")
    mean_standard_error: float | None = Field(None, description="by bootstrap, tasks resampled independently")
    mean_chance: float | None = Field(None, description="what guessing scores")
    mean_majority: float | None = Field(None, description="what the commonest answers score")
    data: str | None = Field(None, description="full, partial, own or shipped")
    data_meaning: str | None = Field(None, description="what that says about comparisons, in words")
    bootstrap_iters: int | None = Field(None, description="resamples")
    scoring: ScoringCost | None = Field(None, description="what scoring took")
    published_note: str | None = Field(None, description="what the publication gives to compare with, in words")
    item_outcomes: list[ItemOutcomes] = Field(default_factory=list, description="every item's outcome")
    baseline: BaselineComparison | None = Field(None, description="against another model's result")
    published: PublishedComparison | None = Field(None, description="beside the publication")


@dataclass(frozen=True)
class TaskRecord:
    """One scored SuperGLUE task. `outcomes` are the items' results in [0, 1], in the order of the data."""

    task: str
    title: str
    metric: str
    version: str
    outcomes: Outcomes
    items: str  # a hash over the items: equal for the same questions
    chance: float
    majority: float | None
    requests: int
    truncated: int
    label: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        body = {key: value for key, value in self.__dict__.items() if key != "outcomes"}
        return {
            **body,
            "values": [round(float(value), 6) for value in self.outcomes.values],
            "clusters": self.outcomes.clusters.tolist(),
        }

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "TaskRecord":
        rest = {key: value for key, value in body.items() if key not in ("values", "clusters", "notes")}
        outcomes = Outcomes(np.array(body["values"], dtype=np.float64), np.array(body["clusters"], dtype=np.int64))
        return cls(**rest, notes=tuple(body["notes"]), outcomes=outcomes)


def task_row(record: TaskRecord, iterations: int, seed: int) -> TaskRow:
    """One entry of `tasks`, values in percent."""
    is_bootstrap = record.metric == "f1"
    error = (
        scores.bootstrap_error(record.outcomes, iterations, seed)
        if is_bootstrap
        else scores.standard_error(record.outcomes)
    )
    return TaskRow(
        kind="measured",
        title=record.title,
        metric=record.metric,
        score=PERCENT * record.outcomes.mean,
        standard_error=_percent(error),
        standard_error_by="bootstrap" if is_bootstrap else "formula",
        chance=PERCENT * record.chance,
        majority=None if record.majority is None else PERCENT * record.majority,
        items=len(record.outcomes.values),
        clusters=int(record.outcomes.clusters.max()) + 1,
        requests=record.requests,
        truncated_requests=record.truncated,
        task_version=record.version,
        data=record.label,
        notes=list(record.notes),
    )


def summarise(records: Sequence[TaskRecord], iterations: int, seed: int) -> dict[str, Any]:
    """Fields of a TasksResult: `tasks`, `mean` with its bootstrap standard error, and the items' outcomes."""
    mean, error = scores.mean_of_tasks([record.outcomes for record in records], iterations, seed)
    majorities = [record.majority if record.majority is not None else record.chance for record in records]
    return {
        "unit": "percent",
        "tasks": {record.task: task_row(record, iterations, seed) for record in records},
        "mean": PERCENT * mean,
        "mean_standard_error": _percent(error),
        "mean_chance": PERCENT * float(np.mean([record.chance for record in records])),
        "mean_majority": PERCENT * float(np.mean(majorities)),
        "item_outcomes": [
            ItemOutcomes(
                task=record.task,
                items=record.items,
                values=[float(f"{value:.6g}") for value in record.outcomes.values],
                clusters=record.outcomes.clusters.tolist(),
            )
            for record in records
        ],
    }


def paired_differences(
    ours: TasksResult, baseline: TasksResult, iterations: int, seed: int
) -> dict[str, PairedDifference]:
    """Ours minus baseline in percent for each task that both scored on the same items, and for "mean"
    where that is every task of ours."""
    mine, theirs = ({entry.task: entry for entry in one.item_outcomes} for one in (ours, baseline))
    if ours.n_shot != baseline.n_shot:
        return {}
    same = [task for task in mine if task in theirs and mine[task].items == theirs[task].items]
    pairs = {task: (mine[task].outcomes, theirs[task].outcomes) for task in same}
    found = {task: _difference(scores.paired_difference(*pairs[task], iterations, seed)) for task in same}
    if same and len(same) == len(mine):
        over_all = scores.paired_mean_difference(
            [own for own, _ in pairs.values()], [other for _, other in pairs.values()], iterations, seed
        )
        found[MEAN] = _difference(over_all)
    return found


def against_baseline(ours: TasksResult, baseline: TasksResult) -> BaselineComparison:
    """What a result file says under `baseline`: the paired differences, and what they tell."""
    differences = paired_differences(ours, baseline, ours.bootstrap_iters or 0, ours.seed)
    titles = {task: row.title or task for task, row in ours.tasks.items()}
    sentence = noise_sentence(ours.model, baseline.model, differences, titles)
    return BaselineComparison(model=baseline.model, differences=differences, sentence=sentence)


def _difference(found: Difference) -> PairedDifference:
    return PairedDifference(
        difference=PERCENT * found.difference,
        standard_error=_percent(found.standard_error),
        low=PERCENT * found.low,
        high=PERCENT * found.high,
        p_value=found.p_value,
        is_noise=found.is_noise,
    )


def noise_sentence(
    model: str, baseline: str, differences: Mapping[str, PairedDifference], titles: Mapping[str, str]
) -> str:
    """What can and what cannot be told from noise, in one sentence."""
    told = [titles.get(task, task) for task, row in differences.items() if not row.is_noise]
    noise = [titles.get(task, task) for task, row in differences.items() if row.is_noise]
    if not differences:
        return f"{model} and {baseline} were not scored on the same items: no differences are shown."
    if not told:
        return f"No difference between {model} and {baseline} can be told from noise."
    rest = f"; on {', '.join(noise)} it cannot be told from noise" if noise else ""
    return f"{model} differs from {baseline} by more than noise on {', '.join(told)}{rest}."


def against_published(ours: TasksResult, published: Mapping[str, float], row: str) -> PublishedComparison:
    """Ours beside a published row of Table 3. A difference above two standard errors is flagged."""
    scores = {task: (found.score, found.standard_error) for task, found in ours.tasks.items()}
    scores[MEAN] = (ours.mean, ours.mean_standard_error)
    compared = {}
    for task, value in published.items():
        score, error = scores.get(task, (None, None))
        if score is not None:
            gap = score - value
            flagged = error is not None and abs(gap) > 2 * error
            compared[task] = PublishedDifference(
                ours=score, published=value, difference=gap, standard_error=error, flagged=flagged
            )
    return PublishedComparison(row=row, comparable=ours.data == "full", tasks=compared)


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else PERCENT * value
