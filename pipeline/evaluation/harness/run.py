"""Scoring a model on tasks, task by task: what is kept is not scored again, and one bar covers all requests."""

import dataclasses
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.config import Config
from pipeline.data import Tokenizer
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
from pipeline.results.statistics import Outcomes
from pipeline.results.tasks import TaskRecord

LEAST_CLUSTERS = 20


def open_cache(config: Config, source: ModelSource, code: dict[str, str]) -> TaskCache:
    """Where tasks that `code` scored are kept between interruptions."""
    settings = config.evaluation
    common = {
        "model": source.key(),
        "code": code,
        "harness": HARNESS_VERSION,
        "n_shot": settings.n_shot,
        "seed": settings.seed,
        "limit": settings.limit,
    }
    return TaskCache(Path(config.paths.runs) / "scored-tasks", common)


def score_superglue(
    config: Config, source: ModelSource, data: Sequence[TaskData], code: dict[str, str]
) -> tuple[list[TaskRecord], dict[str, Any]]:
    """Records of all tasks, from the cache or scored now, and what scoring took."""
    cache = open_cache(config, source, code)
    tasks = {item.task.name: superglue_task(item) for item in data}
    keys = {name: {"version": task.version, "data": _data_of(task).key()} for name, task in tasks.items()}
    bodies = {name: cache.get(name, **keys[name]) for name in tasks}
    todo = [task for name, task in tasks.items() if bodies[name] is None]
    cost = {"seconds": 0.0, "requests": 0, "kept_tasks": len(tasks) - len(todo)}
    for task, found, seconds in _score_each(config, source, todo):
        record = _record(task, found)
        if config.evaluation.limit and record.label == "full":
            record = dataclasses.replace(record, label="partial")
        bodies[task.name] = record.to_json()
        cache.put(task.name, record.to_json(), **keys[task.name])
        cost["seconds"] += seconds
        cost["requests"] += record.requests
    return [TaskRecord.from_json(body) for body in bodies.values() if body is not None], cost


def score_named(config: Config, source: ModelSource, code: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Entries of `tasks` for any tasks of the harness, with the harness' own metrics and standard errors."""
    cache = open_cache(config, source, code)
    tasks = {task.name: task for task in named_tasks(config.evaluation.tasks, config.evaluation.task_dir)}
    keys = {name: {"version": task.version, "settings": task.settings_key()} for name, task in tasks.items()}
    entries = {name: cache.get(name, **keys[name]) for name in tasks}
    todo = [task for name, task in tasks.items() if entries[name] is None]
    for task, found, seconds in _score_each(config, source, todo):
        values = {metric: value for metric, (value, _) in found["metrics"].items()}
        errors = {metric: error for metric, (_, error) in found["metrics"].items()}
        first = next(iter(values), None)
        entry = {
            "metric": first,
            "score": None if first is None else values[first],
            "standard_error": None if first is None else errors[first],
            "metrics": values,
            "metric_standard_errors": errors,
            "items": len(found["samples"]),
            "requests": task.requests,
            "truncated_requests": found["truncated"],
            "task_version": task.version,
            "seconds": seconds,
        }
        entries[task.name] = entry
        cache.put(task.name, entry, **keys[task.name])
    return {name: entry for name, entry in entries.items() if entry is not None}


def _score_each(config: Config, source: ModelSource, tasks: Sequence[HarnessTask]) -> Any:
    """Yield (task, what it scored, seconds) as each is done. Everything that can be wrong is looked at first."""
    if not tasks:
        return
    tokenizer = source.tokenizer()
    _build(config, tasks, tokenizer)
    total = sum(task.requests for task in tasks)
    cluster = config.cluster
    with (
        open_scorer(source, cluster.device, cluster.evaluation_batch_size, cluster.evaluation_tp_size) as scorer,
        tqdm(total=total, unit="req", desc=config.model.name, file=sys.stderr, dynamic_ncols=True) as bar,
    ):
        model = HarnessModel(scorer, tokenizer, bar.update)
        for task in tasks:
            bar.set_postfix_str(task.name)
            truncated = scorer.counts.truncated
            started = time.perf_counter()
            found = task.score(model, config.evaluation.bootstrap_iters if task.data is None else 0)
            found["truncated"] = scorer.counts.truncated - truncated
            yield task, found, time.perf_counter() - started


def _build(config: Config, tasks: Sequence[HarnessTask], tokenizer: Tokenizer) -> None:
    settings = config.evaluation
    print(f"{config.model.name}: building the prompts of {len(tasks)} tasks", file=sys.stderr, flush=True)
    for task in tasks:
        task.build(settings.n_shot, settings.seed, settings.limit)
    check_representable(tasks, tokenizer, config.model.vocab_size)


def _record(task: HarnessTask, found: dict[str, Any]) -> TaskRecord:
    data, samples = _data_of(task), found["samples"]
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
        label=data.label,
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


def _data_of(task: HarnessTask) -> TaskData:
    assert task.data is not None  # superglue_task sets it
    return task.data
