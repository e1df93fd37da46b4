"""From what each task scored to the result file: standard errors, chance, differences, verdicts in words."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.results import statistics
from pipeline.results.statistics import Difference, Outcomes

PERCENT = 100.0
UNIT = "percent"


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


def task_body(record: TaskRecord, iterations: int, seed: int) -> dict[str, Any]:
    """One entry of `tasks`, values in percent."""
    is_bootstrap = record.metric == "f1"
    error = (
        statistics.bootstrap_error(record.outcomes, iterations, seed)
        if is_bootstrap
        else statistics.standard_error(record.outcomes)
    )
    return {
        "title": record.title,
        "metric": record.metric,
        "score": PERCENT * record.outcomes.mean,
        "standard_error": _percent(error),
        "standard_error_by": "bootstrap" if is_bootstrap else "formula",
        "chance": PERCENT * record.chance,
        "majority": None if record.majority is None else PERCENT * record.majority,
        "items": len(record.outcomes.values),
        "clusters": int(record.outcomes.clusters.max()) + 1,
        "requests": record.requests,
        "truncated_requests": record.truncated,
        "task_version": record.version,
        "data": record.label,
        "notes": list(record.notes),
    }


def items_body(record: TaskRecord) -> dict[str, Any]:
    """Per-item outcomes, compact, so that differences to other models can be taken later."""
    return {
        "task": record.task,
        "items": record.items,
        "values": " ".join(f"{value:.6g}" for value in record.outcomes.values),
        "clusters": " ".join(map(str, record.outcomes.clusters)),
    }


def read_outcomes(result: dict[str, Any]) -> dict[str, tuple[str, Outcomes]]:
    """{task: (hash of the items, outcomes)} of a result file's body."""
    found = {}
    for entry in result.get("item_outcomes", []):
        values = np.array(entry["values"].split(), dtype=np.float64)
        clusters = np.array(entry["clusters"].split(), dtype=np.int64)
        found[str(entry["task"])] = (str(entry["items"]), Outcomes(values, clusters))
    return found


def paired_differences(
    ours: dict[str, Any], baseline: dict[str, Any], iterations: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Ours minus baseline in percent for each task that both scored on the same items, and for "mean"
    where that is every task of ours. Takes two result files' bodies."""
    mine, theirs = read_outcomes(ours), read_outcomes(baseline)
    if ours.get("n_shot") != baseline.get("n_shot"):
        return {}
    same = [task for task in mine if task in theirs and mine[task][0] == theirs[task][0]]
    found = {
        task: _difference_body(statistics.paired_difference(mine[task][1], theirs[task][1], iterations, seed))
        for task in same
    }
    if same and len(same) == len(mine):
        over_all = statistics.paired_mean_difference(
            [mine[task][1] for task in same], [theirs[task][1] for task in same], iterations, seed
        )
        found["mean"] = _difference_body(over_all)
    return found


def against_baseline(ours: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """What a result file says under `baseline`: the paired differences of two bodies, and what they tell."""
    differences = paired_differences(ours, baseline, int(ours["bootstrap_iters"]), int(ours["seed"]))
    titles = {task: str(found["title"]) for task, found in ours["tasks"].items()}
    sentence = noise_sentence(str(ours["model"]), str(baseline["model"]), differences, titles)
    return {"model": baseline["model"], "differences": differences, "sentence": sentence}


def _difference_body(difference: Difference) -> dict[str, Any]:
    return {
        "difference": PERCENT * difference.difference,
        "standard_error": _percent(difference.standard_error),
        "low": PERCENT * difference.low,
        "high": PERCENT * difference.high,
        "p_value": difference.p_value,
        "is_noise": difference.is_noise,
    }


def noise_sentence(model: str, baseline: str, differences: dict[str, dict[str, Any]], titles: dict[str, str]) -> str:
    """What can and what cannot be told from noise, in one sentence."""
    told = [titles.get(task, task) for task, row in differences.items() if not row["is_noise"]]
    noise = [titles.get(task, task) for task, row in differences.items() if row["is_noise"]]
    if not differences:
        return f"{model} and {baseline} were not scored on the same items: no differences are shown."
    if not told:
        return f"No difference between {model} and {baseline} can be told from noise."
    rest = f"; on {', '.join(noise)} it cannot be told from noise" if noise else ""
    return f"{model} differs from {baseline} by more than noise on {', '.join(told)}{rest}."


def against_published(body: dict[str, Any], published: dict[str, float], row: str) -> dict[str, Any]:
    """Ours beside a published row of Table 3. A difference above two standard errors is flagged.

    The published row is a single run on the same validation items, so ours carries the error.
    """
    compared = {}
    for task, value in published.items():
        entry = {"score": body["mean"], "standard_error": body["mean_standard_error"]} if task == "mean" else None
        entry = entry or body["tasks"].get(task)
        if entry is None:
            continue
        error = entry["standard_error"]
        gap = entry["score"] - value
        compared[task] = {
            "ours": entry["score"],
            "published": value,
            "difference": gap,
            "standard_error": error,
            "flagged": error is not None and abs(gap) > 2 * error,
        }
    return {"row": row, "comparable": body["data"] == "full", "tasks": compared}


def read_result(path: Path) -> dict[str, Any] | None:
    """A result file's body, or None where there is none to read."""
    try:
        body = files.read_json(path)
    except (OSError, json.JSONDecodeError):
        return None
    return body if isinstance(body, dict) else None


def summarise(records: Sequence[TaskRecord], iterations: int, seed: int) -> dict[str, Any]:
    """`tasks`, `mean` with its bootstrap standard error, and the items' outcomes."""
    mean, error = statistics.mean_of_tasks([record.outcomes for record in records], iterations, seed)
    majorities = [record.majority if record.majority is not None else record.chance for record in records]
    return {
        "unit": UNIT,
        "tasks": {record.task: task_body(record, iterations, seed) for record in records},
        "mean": PERCENT * mean,
        "mean_standard_error": _percent(error),
        "mean_chance": PERCENT * float(np.mean([record.chance for record in records])),
        "mean_majority": PERCENT * float(np.mean(majorities)),
        "item_outcomes": [items_body(record) for record in records],
    }


def _percent(value: float) -> float | None:
    return None if math.isnan(value) else PERCENT * value
