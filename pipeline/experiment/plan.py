"""What an experiment would do and what this machine lacks for it: debug=dry_run."""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pipeline.config import Config
from pipeline.experiment.stages import STAGES
from pipeline.experiment.work import Experiment
from pipeline.models import count

OPENWEBTEXT_TRAIN_TOKENS = 9_035_582_198  # paper facts, section 2
OPENWEBTEXT_DISK_BYTES = 18.1e9 + 54e9  # uint16 shards, and the data set in the hub's cache


@dataclass(frozen=True)
class ModelPlan:
    """One model's training, planned from its shape: counted, except where a field says projected."""

    name: str
    parameters: int
    steps: int
    tokens: int
    devices: int
    memory_bytes_per_device: int
    projected_hours: float | None  # device hours at hardware.training_mfu of the data sheet's rate
    published_hours: float | None  # A100 hours, quoted


@dataclass(frozen=True)
class Plan:
    models: list[ModelPlan]
    faults: list[str]


def make_plan(experiment: Experiment) -> Plan:
    """Count, estimate and look at the machine; touches nothing."""
    models = [_plan_model(config) for config in experiment.configs]
    faults = [
        *_input_faults(experiment),
        *_device_faults(experiment, models),
        *_data_faults(experiment),
        *_evaluation_faults(experiment),
        *_tool_faults(experiment),
    ]
    return Plan(models, faults)


def _plan_model(config: Config) -> ModelPlan:
    training, hardware = config.training, config.hardware
    tokens = training.steps * training.global_batch_size * config.model.block_size
    hours = None
    if config.cluster.device == "cuda":
        rate = hardware.matmul_flops * hardware.training_mfu
        hours = tokens * count.training_flops_per_token(config.model) / rate / 3600
    return ModelPlan(
        config.model.name,
        count.parameters(config.model),
        training.steps,
        tokens,
        config.cluster.num_workers,
        count.training_memory_bytes(config.model, config.cluster.micro_batch_size, training.precision),
        hours,
        config.model.recipe.published_a100_hours if config.scale.name == "paper" else None,
    )


def _names(experiment: Experiment) -> set[str]:
    return {stage.name for stage in experiment.stages}


def _input_faults(experiment: Experiment) -> list[str]:
    """Files that a stage reads and that neither exist nor are made by an earlier stage of the experiment."""
    made: list[Path] = []
    faults = []
    for work in experiment.work():
        inputs = work.stage.paths(work.stage.inputs, work.config)
        if work.stage.name == "evaluate_superglue" and work.config.evaluation.checkpoint:
            inputs = []  # it scores a checkpoint from elsewhere: _evaluation_faults
        faults += [
            f"{path} is missing: run {_maker(path, work.config)} first"
            for path in inputs
            if not path.exists() and not any(path == one or path in one.parents for one in made)
        ]
        made += work.stage.paths(work.stage.outputs, work.config)
    return list(dict.fromkeys(faults))


def _maker(path: Path, config: Config) -> str:
    """The command that writes `path`."""
    for stage in STAGES:
        if path in stage.paths(stage.outputs, config):
            model = f" model={config.model.name}" if stage.scope == "model" else ""
            return f"python -m {stage.module}{model}"
    return "another stage"


def _device_faults(experiment: Experiment, models: list[ModelPlan]) -> list[str]:
    config = experiment.config
    faults = []
    present = torch.cuda.device_count()
    trains = "train" in _names(experiment)
    if config.cluster.device == "cuda":
        needed = config.cluster.num_workers if trains else 1
        if "benchmark_ttft" in _names(experiment):
            needed = max(needed, *config.benchmark.tp_sizes)
        if present < needed:
            faults.append(
                f"{needed} CUDA GPUs are needed, {present} are here: run on a node that has them, "
                "lower cluster.num_workers and benchmark.tp_sizes, or choose scale=demo"
            )
        for index in range(present):
            total = torch.cuda.get_device_properties(index).total_memory
            faults += [
                f"{model.name} needs about {model.memory_bytes_per_device / 1e9:.0f} GB, GPU {index} has "
                f"{total / 1e9:.0f} GB: lower cluster.micro_batch_size"
                for model in models
                if trains and model.memory_bytes_per_device > total
            ]
    elif trains:
        available = psutil.virtual_memory().available
        most = max(models, key=lambda model: model.memory_bytes_per_device)
        if most.memory_bytes_per_device * most.devices > available:
            faults.append(
                f"{most.name} needs about {most.memory_bytes_per_device * most.devices / 1e9:.1f} GB of memory, "
                f"{available / 1e9:.1f} GB are free: lower cluster.micro_batch_size"
            )
    return faults


def _data_faults(experiment: Experiment) -> list[str]:
    config = experiment.config
    if "prepare_data" not in _names(experiment) or Path(config.paths.data, config.data.name, "manifest.json").exists():
        return []
    faults = []
    if config.data.corpus in ("local", "nanogpt"):
        if not config.data.source:
            faults.append(f"data.source is empty: name your files, as 'data.source=[my/{config.data.corpus}]'")
        faults += [f"data.source={path}: not there" for path in config.data.source if not Path(path).exists()]
    if config.data.corpus == "openwebtext":
        source = config.data.source[0] if config.data.source else "Skylion007/openwebtext"
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        if not Path(source).exists() and (offline or not _hub_answers()):
            faults.append(
                f"the data set {source} is not on this disk and the hub cannot be reached: go online, or copy the "
                "data set here and set 'data.source=[its/folder]'"
            )
        free = shutil.disk_usage(".").free
        if free < OPENWEBTEXT_DISK_BYTES:
            faults.append(
                f"OpenWebText takes about {OPENWEBTEXT_DISK_BYTES / 1e9:.0f} GB on disk, {free / 1e9:.0f} GB are "
                "free: set paths.data to a larger disk"
            )
    return faults


def _evaluation_faults(experiment: Experiment) -> list[str]:
    """Checkpoints and task data that are neither on this disk nor within reach."""
    from pipeline.evaluation.scoring.source import missing_checkpoints
    from pipeline.evaluation.superglue.data import missing_data

    if "evaluate_superglue" not in _names(experiment):
        return []

    def online() -> bool:
        return os.environ.get("HF_HUB_OFFLINE", "0") in ("", "0") and _hub_answers()

    return [*missing_checkpoints(experiment.configs, online), *missing_data(experiment.config, online)]


def _hub_answers() -> bool:
    """One short attempt to reach the hub."""
    import socket
    from urllib.parse import urlsplit

    host = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co")).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=2).close()
    except OSError:
        return False
    return True


def _tool_faults(experiment: Experiment) -> list[str]:
    engine = experiment.config.engine
    faults = []
    if "build_engine" in _names(experiment):
        if engine.name == "tensorrt" and importlib.util.find_spec(engine.module) is None:
            faults.append(
                f"engine=tensorrt needs the Python module {engine.module}: pip install -e '.[tensorrt]', "
                "or choose engine=checkpoint"
            )
        for config in experiment.configs:
            from pipeline.models.placement import tp_size_faults

            faults += tp_size_faults(config.model, engine.tp_size, "engine.tp_size")
    return faults
