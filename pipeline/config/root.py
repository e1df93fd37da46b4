"""The whole configuration, parsed and checked."""

import difflib
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError

from pipeline.config import rules
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.data import DataConfig
from pipeline.config.engine import EngineConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.execution import ClusterConfig, DebugConfig, PathsConfig, TrackingConfig
from pipeline.config.group import Group
from pipeline.config.hardware import HardwareConfig
from pipeline.config.link import LinkConfig
from pipeline.config.model import ModelConfig
from pipeline.config.reference import ReferenceConfig
from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.provenance import fingerprint

IDENTITY_GROUPS = ("model", "data", "training", "evaluation", "engine", "benchmark", "link", "hardware", "reference")


class ExperimentConfig(Group):
    """Which models an experiment runs at each scale, and through which stages."""

    name: str = Field(description="name of the config file")
    title: str = Field(description="one line for --help and the report")
    models: dict[str, list[str]] = Field(description="model configs per scale, the baseline first")
    stages: list[str] = Field(default_factory=list, description="stages to run; empty: all")
    reports: list[str] = Field(default_factory=list, description="published tables and figures it touches")


class ScaleConfig(Group):
    """Demo, one or a few GPUs, or the paper's own sizes."""

    name: Literal["demo", "small_gpu", "paper"] = Field(description="name of the config file")
    title: str = Field(description="one line for --help and the report")


class Config(Group):
    """Everything one stage of one model needs to know."""

    scale: ScaleConfig
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    engine: EngineConfig
    benchmark: BenchmarkConfig
    link: LinkConfig
    hardware: HardwareConfig
    reference: ReferenceConfig
    cluster: ClusterConfig
    tracking: TrackingConfig
    paths: PathsConfig
    debug: DebugConfig
    experiment: ExperimentConfig | None = None
    tasks: list[str] = Field(default_factory=list, description="short for evaluation.tasks with evaluation=lm_eval")

    def fingerprint(self, *groups: str) -> str:
        """12 hex digits naming the values of these identity groups; raises KeyError on others."""
        unknown = set(groups) - set(IDENTITY_GROUPS)
        if unknown:
            raise KeyError(f"not identity groups: {sorted(unknown)}")
        return fingerprint({name: getattr(self, name).identity() for name in sorted(groups)})

    @property
    def gradient_accumulation(self) -> int:
        """Micro-batches per worker and optimizer step; the rules make sure that it is whole."""
        return self.training.global_batch_size // (self.cluster.micro_batch_size * self.cluster.num_workers)


def parse(raw: dict[str, Any]) -> Config:
    """Type and check a composed configuration; raises ConfigError with every fault at once."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_describe([_fault(detail) for detail in error.errors()])) from None
    faults = rules.faults(config)
    if faults:
        raise ConfigError(_describe(faults))
    return config


def _describe(faults: list[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{count} in the configuration:\n" + "\n".join(f"  - {fault}" for fault in faults)


def _fault(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key}: missing; set it in conf/ or on the command line"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if detail["type"] == "value_error":
        return "; ".join(f"{key}.{line}" if key else line for line in message.split("\n"))
    return f"{key}={detail['input']!r}: {message}"


def _suggestion(location: tuple[Any, ...]) -> str:
    near = nearest(str(location[-1]), known_keys(".".join(str(part) for part in location[:-1])))
    return f"; did you mean {near}?" if near else ""


def known_keys(group: str) -> list[str]:
    """Keys of a dotted group ("model", or "" for the root); empty where the group is free-form."""
    current: type[BaseModel] = Config
    for part in filter(None, group.split(".")):
        field = current.model_fields.get(part)
        annotations = [field.annotation, *get_args(field.annotation)] if field else []  # X, or the X of X | None
        groups = [kind for kind in annotations if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not groups:
            return []
        current = groups[0]
    return list(current.model_fields)


def nearest(name: str, candidates: list[str]) -> str | None:
    """The candidate closest in spelling, or None when nothing is near."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return close[0] if close else None
