"""MLflow behind a small interface. The only file that imports mlflow."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline import files, provenance
from pipeline.errors import OutputError

if TYPE_CHECKING:
    from pipeline.config import Config

SQLITE = "sqlite:///"
STANDALONE = "stages run on their own"
OPENING_S = 180.0  # making a new store takes some seconds, on a busy machine more
SEARCHED = 10_000  # runs that one search of the store may bring
BATCH = 900  # the store takes at most 1000 metrics a call


class StageRun:
    """What a stage may log. This base logs nowhere: the null tracker."""

    def log_params(self, values: dict[str, Any]) -> None:
        """Settings, once; nested keys joined by dots."""

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Numbers, at a step of training or once."""

    def log_series(self, rows: list[tuple[int, dict[str, float]]]) -> None:
        """Points of a curve, as (step, numbers): one call to the store, and once each however often they are sent."""

    def log_artifact(self, path: Path) -> None:
        """A file or a folder to keep with the run."""

    def log_trial(
        self,
        name: str,
        key: str,
        params: dict[str, Any],
        rows: list[tuple[int, dict[str, float]]],
        metrics: dict[str, float],
        outcome: str,
    ) -> None:
        """A trial that has ended as a run below this one; once, however often it is told. `key` names its work.

        Told again with another outcome, as one that was stopped and is then run to the end, it is the same run.
        """


class Tracker:
    """Opens one parent run an experiment and one child run a stage. This base logs nowhere."""

    @contextlib.contextmanager
    def experiment(self, config: "Config", key: str) -> Iterator[None]:
        """Everything inside belongs to one parent run; the same key resumes the same run."""
        yield

    @contextlib.contextmanager
    def stage(self, name: str, config: "Config", key: str = "") -> Iterator[StageRun]:
        """`name` is a stage, with its model where it has one; `key` tells its work from others of that name.

        Work that is begun again goes on in its run.
        """
        yield StageRun()


def open_tracker(config: "Config") -> Tracker:
    """The tracker that tracking.backend names; raises OutputError when its store cannot be opened."""
    if config.tracking.backend == "none" or config.debug.dry_run:
        return Tracker()
    return MlflowTracker(config)


def ui_command(config: "Config") -> str | None:
    """The command that shows the runs, or None where nothing is tracked."""
    if config.tracking.backend == "none":
        return None
    return f"mlflow ui --backend-store-uri {config.tracking.uri}"


def _sole_maker(uri: str) -> contextlib.AbstractContextManager[None]:
    """Tables are made by one process at a time: MLflow breaks a new SQLite store that two open at once."""
    if not uri.startswith(SQLITE):
        return contextlib.nullcontext()
    path = Path(uri.removeprefix(SQLITE))
    files.check_writable(path.parent, hint="tracking.uri")  # MLflow itself would try again for minutes
    in_use = f"tracking.uri={uri}: another process has been opening the store for minutes; is it alive?"
    return files.locked(path.with_name(f"{path.name}.lock"), OPENING_S, in_use)


class MlflowTracker(Tracker):
    """Runs in MLflow's store: SQLite in the project unless tracking.uri says otherwise."""

    def __init__(self, config: "Config") -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is gone is said within seconds
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import logging

        import mlflow

        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics.system_metrics_monitor"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self._mlflow = mlflow
        tracking = config.tracking
        mlflow.set_tracking_uri(tracking.uri)
        mlflow.set_system_metrics_sampling_interval(tracking.system_metrics_interval_s)
        self._system_metrics = tracking.system_metrics
        self._parent: str | None = None
        try:
            with _sole_maker(tracking.uri):
                self._client = mlflow.MlflowClient()  # makes the tables of a new store
                self._experiment_id = self._open(
                    config.experiment.name if config.experiment else STANDALONE, tracking.artifact_dir
                )
                self._end_what_died()
        except OutputError:
            raise
        except Exception as error:  # MLflow raises whatever its store raises
            raise OutputError(
                f"tracking.uri={tracking.uri}: cannot open the MLflow store ({str(error).splitlines()[0]}); "
                "check the path or the server, or set tracking=none"
            ) from error

    def _open(self, name: str, artifact_dir: str) -> str:
        """The id of the MLflow experiment, made where it is not there."""
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = self._mlflow.get_tracking_uri().startswith(SQLITE)
        location = Path(artifact_dir).resolve().as_uri() if local else None
        return str(self._client.create_experiment(name, artifact_location=location))

    def _end_what_died(self) -> None:
        """Runs that a killed process of this machine left running are killed ones."""
        condition = f"attributes.status = 'RUNNING' and tags.host = '{provenance.host()}'"
        for run in self._client.search_runs([self._experiment_id], condition):
            process = run.data.tags.get("process", "")
            if process.isdigit() and not psutil.pid_exists(int(process)):
                self._client.set_terminated(run.info.run_id, "KILLED")

    @contextlib.contextmanager
    def experiment(self, config: "Config", key: str) -> Iterator[None]:
        name = f"{config.experiment.name if config.experiment else STANDALONE} {config.scale.name} {key}"
        run = self._find(name, key)
        tags = self._tags(key) | {"scale": config.scale.name}
        with self._mlflow.start_run(
            run_id=run, run_name=name, experiment_id=self._experiment_id, log_system_metrics=False, tags=tags
        ) as parent:
            self._parent = parent.info.run_id
            try:
                yield
            finally:
                self._parent = None

    @contextlib.contextmanager
    def stage(self, name: str, config: "Config", key: str = "") -> Iterator[StageRun]:
        run = self._find(name, key) if key or self._parent else None
        with self._mlflow.start_run(
            run_id=run,
            run_name=name,
            experiment_id=self._experiment_id,
            nested=self._parent is not None,
            log_system_metrics=self._system_metrics,
            tags=self._tags(key),
        ) as child:
            log = MlflowStageRun(self._mlflow, self._client, child.info.run_id, resumed=run is not None)
            if run is None:
                log.log_params(config.model_dump(mode="json", exclude={"reference", "paths", "hardware", "experiment"}))
                log.log_text(config.model_dump_json(indent=2), "config.json")
            yield log

    def _tags(self, key: str) -> dict[str, str]:
        """What a later process knows a run by: its work, and whether the process that writes it lives."""
        return {"work": key, "host": provenance.host(), "process": str(os.getpid())}

    def _find(self, name: str, key: str) -> str | None:
        """A run of this name, work and parent that was begun before: restarts go on in it."""
        condition = f"attributes.run_name = '{name}' and tags.work = '{key}'"
        if self._parent:
            condition += f" and tags.`mlflow.parentRunId` = '{self._parent}'"
        runs = self._client.search_runs([self._experiment_id], condition)
        found = [run for run in runs if self._parent or "mlflow.parentRunId" not in run.data.tags]
        return found[0].info.run_id if found else None


class MlflowStageRun(StageRun):
    """One child run."""

    def __init__(self, mlflow: Any, client: Any, run_id: str, resumed: bool = False) -> None:
        self._mlflow, self._client, self._run_id = mlflow, client, run_id
        self._resumed = resumed
        self._trials: dict[str, tuple[str, str]] | None = None  # (id, outcome) by work of the runs told below this one
        self._steps: dict[str, set[int]] = {}  # of each curve, what an earlier process has sent
        self._times: dict[tuple[str, int], int] = {}  # what is sent again must be the same row, which the store drops

    def log_params(self, values: dict[str, Any]) -> None:
        flat = list(_flatten(values))
        params = [self._mlflow.entities.Param(key, str(value)[:5000]) for key, value in flat]
        for start in range(0, len(params), 90):  # the store takes at most 100 parameters a call
            self._client.log_batch(self._run_id, params=params[start : start + 90])

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        self._send([(key, value, _now_ms(), step or 0) for key, value in values.items()])

    def log_series(self, rows: list[tuple[int, dict[str, float]]]) -> None:
        now = _now_ms()
        self._send(
            [
                (key, value, self._times.setdefault((key, step), now), step)
                for step, row in rows
                for key, value in row.items()
                if step not in self._sent_before(key)
            ]
        )

    def log_trial(
        self,
        name: str,
        key: str,
        params: dict[str, Any],
        rows: list[tuple[int, dict[str, float]]],
        metrics: dict[str, float],
        outcome: str,
    ) -> None:
        told = self._told() if self._trials is None else self._trials
        self._trials = None  # where the store fails halfway, what stands in it is looked up again
        run_id, known = told.get(key, ("", ""))
        if known != outcome:
            if not known:
                tags = {"mlflow.parentRunId": self._run_id, "work": key, "outcome": outcome}
                tags |= {"host": provenance.host(), "process": str(os.getpid())}
                run_id = self._client.create_run(self._experiment(), tags=tags, run_name=name).info.run_id
            child = MlflowStageRun(self._mlflow, self._client, run_id, resumed=bool(known))
            if not known:
                child.log_params(params)
            child.log_series(rows)
            child.log_metrics(metrics)
            if known:
                self._client.set_tag(run_id, "outcome", outcome)  # last: until then all is told again
            else:
                self._client.set_terminated(run_id)
            told[key] = run_id, outcome
        self._trials = told

    def _told(self) -> dict[str, tuple[str, str]]:
        """The trials below this run that were told; those that a process half told before it died are deleted."""
        below = f"tags.`mlflow.parentRunId` = '{self._run_id}'"
        found = self._client.search_runs([self._experiment()], below, max_results=SEARCHED)
        trials = [run for run in found if {"work", "outcome"} <= run.data.tags.keys()]
        for run in (run for run in trials if run.info.status != "FINISHED"):
            self._client.delete_run(run.info.run_id)
        return {
            run.data.tags["work"]: (run.info.run_id, run.data.tags["outcome"])
            for run in trials
            if run.info.status == "FINISHED"
        }

    def _experiment(self) -> str:
        return str(self._client.get_run(self._run_id).info.experiment_id)

    def _sent_before(self, key: str) -> set[int]:
        """A process that was killed may have sent more than it wrote down."""
        if key not in self._steps:
            history = self._client.get_metric_history(self._run_id, key) if self._resumed else []
            self._steps[key] = {one.step for one in history}
        return self._steps[key]

    def _send(self, points: list[tuple[str, float, int, int]]) -> None:
        metrics = [self._mlflow.entities.Metric(key, float(value), when, step) for key, value, when, step in points]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + BATCH])

    def log_text(self, text: str, name: str) -> None:
        self._client.log_text(self._run_id, text, name)

    def log_artifact(self, path: Path) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), path.name)
        elif path.exists():
            self._client.log_artifact(self._run_id, str(path))


def _now_ms() -> int:
    return int(time.time() * 1000)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
