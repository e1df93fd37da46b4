"""Typed schema of every config group, and every rule between fields (one file a group)."""

from pipeline.config.model import ARCHITECTURES, ARCHITECTURES_WITH_WAYS, ModelConfig
from pipeline.config.parsing import known_keys, nearest, parse
from pipeline.config.schema import Config, ExperimentConfig

__all__ = [
    "ARCHITECTURES",
    "ARCHITECTURES_WITH_WAYS",
    "Config",
    "ExperimentConfig",
    "ModelConfig",
    "known_keys",
    "nearest",
    "parse",
]
