"""What training would take, planned from the shapes: counted, except where a heading says otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from tabulate import tabulate

from pipeline.config import Config
from pipeline.config.execution import ClusterConfig
from pipeline.errors import MissingRequirementError
from pipeline.models import count
from pipeline.models.placement import check_trainable
from pipeline.training.loss import CHUNK_BYTES
from pipeline.training.ray_launcher import check_resources

HEADERS = [
    *("model", "parameters", "steps", "tokens", "ranks"),
    *("GB per rank (est.)", "GPU hours (proj.)", "A100 hours (paper)"),
]


@dataclass(frozen=True)
class TrainingPlan:
    """One model's training."""

    name: str
    parameters: int
    steps: int
    tokens: int
    workers: int  # data-parallel copies
    tp_size: int  # ranks of a copy
    memory_bytes_per_rank: int  # estimated
    projected_hours: float | None  # device hours at hardware.training_mfu of the data sheet's rate
    published_hours: float | None  # A100 hours, quoted

    @classmethod
    def of(cls, config: Config) -> "TrainingPlan":
        training, hardware, cluster = config.training, config.hardware, config.cluster
        tokens = _tokens(config)
        hours = None
        if cluster.device == "cuda":
            rate = hardware.matmul_flops * hardware.training_mfu
            hours = tokens * count.training_flops_per_token(config.model) / rate / 3600
        return cls(
            config.model.name,
            count.parameters(config.model),
            training.steps,
            tokens,
            cluster.num_workers,
            cluster.tp_size,
            count.training_memory_bytes(
                *(config.model, cluster.micro_batch_size, training.precision, CHUNK_BYTES[cluster.device]),
                tp_size=cluster.tp_size,
                state_shards=cluster.num_workers if cluster.fsdp else 1,
            ),
            hours,
            config.model.recipe.published_a100_hours if config.scale.name == "paper" else None,
        )

    def row(self) -> list[str]:
        return [
            self.name,
            *(f"{number:,}" for number in (self.parameters, self.steps, self.tokens)),
            f"{self.workers} × {self.tp_size}" if self.tp_size > 1 else str(self.workers),
            f"{self.memory_bytes_per_rank / 1e9:.1f}",
            *("-" if hours is None else f"{hours:,.0f}" for hours in (self.projected_hours, self.published_hours)),
        ]


def text(configs: Sequence[Config]) -> str:
    """A table of what training these models would take."""
    rows = [TrainingPlan.of(config).row() for config in configs]
    table = tabulate(rows, headers=HEADERS, disable_numparse=True, stralign="right")
    hardware = configs[0].hardware
    if configs[0].cluster.device != "cuda":
        return table
    return (
        f"{table}\n\nGPU hours are projected: training FLOPs at {hardware.training_mfu:.0%} of "
        f"{hardware.matmul_flops:.3g} FLOP/s ({hardware.name}); the paper's A100 hours are quoted."
    )


def notes(configs: Sequence[Config]) -> list[str]:
    """A line where the models are not trained on the same number of tokens: a comparison that is not like with like."""
    seen: dict[int, list[str]] = {}
    for config in configs:
        seen.setdefault(_tokens(config), []).append(config.model.name)
    if len(seen) < 2:
        return []
    groups = ", ".join(f"{_short(tokens)} for {' and '.join(names)}" for tokens, names in sorted(seen.items()))
    return [f"these models do not see the same number of training tokens: {groups}"]


def _tokens(config: Config) -> int:
    return config.training.steps * config.training.global_batch_size * config.model.block_size


def _short(tokens: int) -> str:
    return f"{tokens / 1e9:.1f}B" if tokens >= 1e9 else f"{tokens:,}"


def faults(configs: Sequence[Config]) -> list[str]:
    """What this machine lacks of devices and memory; raises ConfigError for a model that has nothing to train."""
    for config in configs:
        check_trainable(config.model)
    cluster = configs[0].cluster
    found = []
    try:
        check_resources(cluster)
    except MissingRequirementError as error:
        found += str(error).splitlines()
    if not cluster.ray_address:
        found += _memory_faults(cluster, [TrainingPlan.of(config) for config in configs])
    return found


def _memory_faults(cluster: ClusterConfig, plans: list[TrainingPlan]) -> list[str]:
    mend = "lower cluster.micro_batch_size, or spread the model: cluster.tp_size, cluster.fsdp"
    if cluster.device == "cuda":
        totals = [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]
        return [
            f"{plan.name} needs about {plan.memory_bytes_per_rank / 1e9:.0f} GB, GPU {index} has "
            f"{total / 1e9:.0f} GB: {mend}"
            for index, total in enumerate(totals)
            for plan in plans
            if plan.memory_bytes_per_rank > total
        ]
    most, available = max(plans, key=lambda plan: plan.memory_bytes_per_rank), psutil.virtual_memory().available
    snapshots = 12 * most.parameters * (most.workers if cluster.fsdp else 1)  # while a checkpoint is written
    needed = most.memory_bytes_per_rank * most.workers * most.tp_size + snapshots
    if needed <= available:
        return []
    return [
        f"{most.name} needs about {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free: "
        "lower cluster.micro_batch_size"
    ]
