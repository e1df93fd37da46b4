"""Typed schema of every config group, and every rule between fields (one file a group)."""

from pipeline.config.model import ModelConfig
from pipeline.config.parsing import known_keys, nearest, parse
from pipeline.config.schema import Config, ExperimentConfig

__all__ = [
    "Config",
    "ExperimentConfig",
    "ModelConfig",
    "known_keys",
    "nearest",
    "parse",
]
