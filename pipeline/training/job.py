"""What a training worker needs to know, and its place among the workers."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.config.execution import ClusterConfig
from pipeline.config.model import ModelConfig
from pipeline.config.training import TrainingConfig

CPU = torch.device("cpu")
STOP = "stop"  # a file in the run folder: save and end


class NonFiniteError(Exception):
    """A loss or gradient norm that is no number; the weights are as they were before the step."""


@dataclass(frozen=True)
class TrainingJob:
    """What a worker needs; every path absolute, since workers start elsewhere."""

    model: ModelConfig
    training: TrainingConfig
    cluster: ClusterConfig
    data_folder: Path
    run_folder: Path
    fingerprint: str
    device_flops: dict[str, float] = field(default_factory=dict)  # peak rates by torch's names, for MFU


@dataclass(frozen=True)
class Worker:
    """This process's place among the training workers."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
