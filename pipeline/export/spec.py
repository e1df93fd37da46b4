"""What an engine is, as plain data: everything that its bytes depend on but the weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.engine import EngineConfig
from pipeline.config.model import ModelConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.export.heads import engine_head_dim
from pipeline.models import Placement, local_shape
from pipeline.models.placement import head_dim, own_parts

FILE = "spec.json"
UNPADDED = ("huggingface", "torch")  # engines that take heads of any size


def check_parts(model: ModelConfig, engine: str) -> None:
    """Raise ConfigError where a model has settings that an exporter written by hand does not cover."""
    if parts := own_parts(model):
        raise ConfigError(
            f"model={model.name} has {', '.join(parts)}: engine={engine} does not cover that; engine=tensorrt does"
        )


@dataclass(frozen=True)
class EngineSpec:
    """A model split over tp_size ranks, for one kind of engine."""

    model: ModelConfig
    engine: str
    tp_size: int
    dtype: str
    head_dim: int  # as computed, padding included
    mode: str
    max_batch_size: int
    max_input_len: int
    module: str
    target: str

    @classmethod
    def of(cls, model: ModelConfig, engine: EngineConfig) -> "EngineSpec":
        """Raises ConfigError where the model cannot be split so, or no kernel has its heads."""
        local_shape(model, Placement(0, engine.tp_size))  # raises where tp_size divides neither ways nor heads
        fused = engine.name not in UNPADDED
        return cls(
            model=model,
            engine=engine.name,
            tp_size=engine.tp_size,
            dtype=engine.dtype,
            head_dim=engine_head_dim(model, engine.head_padding) if fused else head_dim(model),
            mode=engine.mode,
            max_batch_size=engine.max_batch_size,
            max_input_len=min(engine.max_input_len, model.block_size),
            module=engine.module,
            target=engine.target,
        )

    @classmethod
    def read(cls, path: Path) -> "EngineSpec":
        """A spec.json that `body` gave; raises CheckpointError on anything else."""
        try:
            body = dict(files.read_json(path))
            return cls(**{**body, "model": ModelConfig.model_validate(body["model"])})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} does not describe an engine: {error!r}") from None

    def placement(self, rank: int) -> Placement:
        return Placement(rank, self.tp_size)

    def body(self) -> dict[str, Any]:
        """As JSON data; the model by its shape alone."""
        return {**asdict(self), "model": {"name": self.model.name, **self.model.identity()}}

    def identity(self) -> dict[str, Any]:
        return {**self.body(), "model": self.model.identity()}
