"""The whole configuration: one typed value for each group."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.data import DataConfig
from pipeline.config.engine import EngineConfig
from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.execution import ClusterConfig, DebugConfig, PathsConfig, TrackingConfig
from pipeline.config.group import Group, Name, Once
from pipeline.config.hardware import HardwareConfig
from pipeline.config.link import LinkConfig
from pipeline.config.model import ModelConfig
from pipeline.config.reference import ReferenceConfig
from pipeline.config.study import StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.config.training import TrainingConfig
from pipeline.provenance import fingerprint

Scale = Literal["demo", "cpu", "small_gpu", "paper"]
IDENTITY_GROUPS = (
    *("model", "data", "training", "study", "sweep", "evaluation", "engine", "benchmark", "link", "hardware"),
    "reference",
)


class ExperimentConfig(Group):
    """Which models an experiment runs at each scale, and through which stages."""

    name: Name = Field(description="name of the config file")
    title: str = Field(description="one line for --help and the report")
    models: dict[Scale, Annotated[list[Name], Field(min_length=1), Once]] = Field(
        description="model configs per scale, the baseline first"
    )
    stages: Annotated[list[str], Once] = Field(default_factory=list, description="stages to run; empty: all")


class ScaleConfig(Group):
    """Demo, studies on a few cores, one or a few GPUs, or the paper's own sizes."""

    name: Scale = Field(description="name of the config file")
    title: str = Field(description="one line for --help and the report")


class Config(Group):
    """Everything one stage of one model needs to know."""

    scale: ScaleConfig
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    sweep: SweepConfig
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
    study: StudyConfig | None = None
    tasks: list[str] = Field(default_factory=list, description="short for evaluation.tasks with evaluation=lm_eval")

    def fingerprint(self, *groups: str) -> str:
        """12 hex digits naming the values of these identity groups; raises KeyError on others."""
        unknown = set(groups) - set(IDENTITY_GROUPS)
        if unknown:
            raise KeyError(f"not identity groups: {sorted(unknown)}")
        return fingerprint({name: getattr(self, name).identity() for name in sorted(groups)})
