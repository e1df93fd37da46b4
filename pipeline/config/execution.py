"""Groups that say only where and how something ran: never part of a fingerprint."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config.group import Group, Name

Folder = Annotated[str, Field(min_length=1)]


class ClusterConfig(Group):
    """Workers and devices."""

    name: Name = Field(description="name of the config file")
    device: Literal["cpu", "cuda"] = Field("cpu", description="device of training, evaluation and ranks")
    num_workers: PositiveInt = Field(1, description="data-parallel training workers, each of tp_size ranks")
    tp_size: PositiveInt = Field(1, description="tensor-parallel ranks that train one copy of the model together")
    fsdp: bool = Field(False, description="shard weights, gradients and moments over the data-parallel workers")
    cpus_per_worker: NonNegativeFloat = Field(
        1, description="CPU cores Ray reserves per worker; 0: all cores shared evenly"
    )
    ray_address: str | None = Field(None, description="an existing Ray cluster; null: one on this machine")
    ray_dashboard: bool = Field(False, description="start Ray's dashboard")
    max_failures: NonNegativeInt = Field(2, description="worker failures survived before giving up")
    micro_batch_size: PositiveInt = Field(8, description="sequences per worker and pass; the rest is accumulated")
    evaluation_batch_size: PositiveInt = Field(8, description="sequences per pass when scoring")
    evaluation_tp_size: PositiveInt = Field(1, description="tensor-parallel ranks that score tasks together")
    compile: bool = Field(False, description="torch.compile the training step")
    checkpoint_interval: PositiveInt = Field(1000, description="steps between checkpoints: the most a kill can lose")
    checkpoint_minutes: PositiveFloat = Field(30, description="minutes between checkpoints at most, whatever the steps")
    keep_checkpoints: PositiveInt = Field(2, description="newest checkpoints kept, to fall back to")
    milestone_interval: NonNegativeInt = Field(
        0, description="steps between checkpoints kept for good, to extend or branch from; 0: none"
    )
    collective_timeout_minutes: PositiveFloat = Field(
        10, description="minutes that workers wait for one another before the run counts as failed"
    )
    log_interval: PositiveInt = Field(10, description="steps between log lines")
    data_workers: NonNegativeInt = Field(0, description="processes that tokenise; 0: one per core")
    threads_per_rank: NonNegativeInt = Field(0, description="compute threads per benchmark rank; 0: cores over ranks")
    pin_cores: bool = Field(True, description="pin benchmark ranks to cores where there are enough")


class TrackingConfig(Group):
    """Where runs are logged."""

    name: Name = Field(description="name of the config file")
    backend: Literal["mlflow", "none"] = Field("mlflow", description="mlflow, or nothing")
    uri: str = Field("sqlite:///mlflow.db", description="MLflow tracking URI", min_length=1)
    artifact_dir: Folder = Field("mlartifacts", description="folder of artifacts for a local store")
    system_metrics: bool = Field(True, description="log CPU, memory and GPU use")
    system_metrics_interval_s: PositiveFloat = Field(5.0, description="seconds between system metrics")


class PathsConfig(Group):
    """Folders, relative to the project."""

    data: Folder = Field("data", description="token shards and tokenizers")
    trained: Folder = Field("trained", description="finished models")
    runs: Folder = Field("runs", description="checkpoints and logs of unfinished work")
    engines: Folder = Field("engines", description="exported checkpoints and engines")
    results: Folder = Field("results", description="result files")
    report: Folder = Field("report", description="the report")


class DebugConfig(Group):
    """How much is really done."""

    name: Name = Field(description="name of the config file")
    dry_run: bool = Field(False, description="print the plan and what is missing; do nothing")
    verbose: bool = Field(False, description="show tracebacks of expected errors too")
