"""Scoring a model on tasks, task by task: what is kept is not scored again, and one bar covers all requests."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.config import Config
from pipeline.evaluation.harness.adapter import (
    HARNESS_VERSION,
    HarnessModel,
    HarnessTask,
    check_representable,
    named_tasks,
    superglue_task,
)
from pipeline.evaluation.harness.cache import TaskCache
from pipeline.evaluation.scoring.ranks import open_scorer
from pipeline.evaluation.scoring.source import ModelSource
from pipeline.evaluation.superglue.data import TaskData
from pipeline.results.scores import Outcomes
from pipeline.results.tasks import TaskRecord

LEAST_CLUSTERS = 20


def score_superglue(
    config: Config, source: ModelSource, data: Sequence[TaskData], code: dict[str, str]
) -> tuple[list[TaskRecord], dict[str, Any]]:
    """Records of all tasks, from the cache or scored now, and what scoring took."""

    def body_of(task: HarnessTask, found: dict[str, Any]) -> dict[str, Any]:
        return _record(task, found, config.evaluation.limit > 0).to_json()

    tasks = [superglue_task(item) for item in data]
    bodies, cost = _kept_or_scored(config, source, code, tasks, body_of)
    return [TaskRecord.from_json(body) for body in bodies.values()], cost


def score_named(config: Config, source: ModelSource, code: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Entries of `tasks` for any tasks of the harness, with the harness' own metrics and standard errors."""
    tasks = named_tasks(config.evaluation.tasks, config.evaluation.task_dir)
    return _kept_or_scored(config, source, code, tasks, _entry)[0]


def _kept_or_scored(
    config: Config,
    source: ModelSource,
    code: dict[str, str],
    tasks: Sequence[HarnessTask],
    body_of: Callable[[HarnessTask, dict[str, Any]], dict[str, Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What `body_of` makes of each task's scores, by name, kept from an earlier try where it can be; and the cost."""
    settings = config.evaluation
    common = {
        "model": source.key(),
        "code": code,
        "harness": HARNESS_VERSION,
        "n_shot": settings.n_shot,
        "seed": settings.seed,
        "limit": settings.limit,
    }
    cache = TaskCache(Path(config.paths.runs) / "scored-tasks", common)
    keys = {task.name: task.key() for task in tasks}  # before prompts are built: that changes a task's settings
    bodies = {name: cache.get(name, **key) for name, key in keys.items()}
    todo = [task for task in tasks if bodies[task.name] is None]
    cost = {"seconds": 0.0, "requests": 0, "kept_tasks": len(tasks) - len(todo)}
    for task, found in _score_each(config, source, todo):
        body = bodies[task.name] = body_of(task, found)
        cache.put(task.name, body, **keys[task.name])
        cost["seconds"] += found["seconds"]
        cost["requests"] += task.requests
    return {name: body for name, body in bodies.items() if body is not None}, cost


def _score_each(
    config: Config, source: ModelSource, tasks: Sequence[HarnessTask]
) -> Iterator[tuple[HarnessTask, dict[str, Any]]]:
    """Each task and what it scored, as it is done. Everything that can be wrong is looked at first."""
    if not tasks:
        return
    settings, cluster, tokenizer = config.evaluation, config.cluster, source.tokenizer()
    print(f"{config.model.name}: building the prompts of {len(tasks)} tasks", file=sys.stderr, flush=True)
    for task in tasks:
        task.build(settings.n_shot, settings.seed, settings.limit)
    check_representable(tasks, tokenizer, config.model.vocab_size)
    total = sum(task.requests for task in tasks)
    with (
        open_scorer(source, cluster.device, cluster.evaluation_batch_size, cluster.evaluation_tp_size) as scorer,
        tqdm(total=total, unit="req", desc=config.model.name, file=sys.stderr, dynamic_ncols=True) as bar,
    ):
        model = HarnessModel(scorer, tokenizer, bar.update)
        for task in tasks:
            bar.set_postfix_str(task.name)
            truncated = scorer.counts.truncated
            started = time.perf_counter()
            found = task.score(model, settings.bootstrap_iters if task.data is None else 0)
            took = {"seconds": time.perf_counter() - started, "truncated": scorer.counts.truncated - truncated}
            yield task, found | took


def _entry(task: HarnessTask, found: dict[str, Any]) -> dict[str, Any]:
    values = {metric: value for metric, (value, _) in found["metrics"].items()}
    errors = {metric: error for metric, (_, error) in found["metrics"].items()}
    first = next(iter(values), None)
    return {
        "metric": first,
        "score": None if first is None else values[first],
        "standard_error": None if first is None else errors[first],
        "metrics": values,
        "metric_standard_errors": errors,
        "items": len(found["samples"]),
        "requests": task.requests,
        "truncated_requests": found["truncated"],
        "task_version": task.version,
        "seconds": found["seconds"],
    }


def _record(task: HarnessTask, found: dict[str, Any], is_part: bool) -> TaskRecord:
    """`is_part`: not every question was asked."""
    data, samples = task.data, found["samples"]
    assert data is not None  # superglue_task sets it
    metric = data.task.metric
    values = np.array([float(sample[metric]) for sample in samples])
    digest = hashlib.sha256("".join(sample["doc_hash"] for sample in samples).encode())
    return TaskRecord(
        task=task.name,
        title=data.task.title,
        metric=metric,
        version=task.version,
        outcomes=Outcomes(values, _clusters(samples, data.task.cluster_key)),
        items=digest.hexdigest()[:16],
        chance=float(np.mean([task.chance_of(sample, metric) for sample in samples])),
        majority=_majority(samples) if metric == "acc" else None,
        requests=task.requests,
        truncated=found["truncated"],
        label="partial" if is_part and data.label == "full" else data.label,
        notes=data.notes,
    )


def _clusters(samples: list[dict[str, Any]], key: str | None) -> np.ndarray:
    """Number of the cluster of each sample, (n,): its passage's where samples share passages.

    A handful of clusters says nothing about how clusters differ: then each sample is its own.
    """
    numbers: dict[str, int] = {}
    clusters = np.array([numbers.setdefault(sample["doc"][key], len(numbers)) for sample in samples]) if key else None
    return np.arange(len(samples)) if clusters is None or len(numbers) < LEAST_CLUSTERS else clusters


def _majority(samples: list[dict[str, Any]]) -> float:
    """Accuracy of always giving the commonest label."""
    return max(Counter(sample["doc"]["label"] for sample in samples).values()) / len(samples)
