"""Small models with lively weights: large enough to tell logits apart, LayerNorms that differ a way and a layer."""

from functools import cache
from pathlib import Path

import torch

from pipeline.compose import model_config
from pipeline.config import ModelConfig
from pipeline.config.engine import EngineConfig
from pipeline.export.spec import EngineSpec
from pipeline.models import Transformer, architectures, build_model
from pipeline.models.checkpoint import save_model

NAMES = architectures.names()


def config_of(architecture: str, **changes: object) -> ModelConfig:
    """The demo shape with a small vocabulary and fewer layers; four ways where the architecture has any."""
    base = model_config("demo_kraken_4way" if architecture == "kraken" else "demo_standard").model_dump()
    ways = 1 if architectures.block_of(architecture).ways == "none" else 4
    shape = {"architecture": architecture, "n_ways": ways, "track_depth": 2}
    shape |= {"vocab_size": 301, "n_layer": 3, "block_size": 64, "init_std": 0.02}
    return ModelConfig.model_validate(base | shape | changes)


def lively(config: ModelConfig, seed: int = 7) -> Transformer:
    """Random weights with logits of a few units, biases and LayerNorm weights off their defaults."""
    model = build_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if ".ln_" in name or name.startswith("ln_f"):
                parameter.add_(0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.mul_(4)
    return model


@cache
def tokens(config_vocab: int = 301, batch: int = 2, length: int = 11) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, config_vocab, (batch, length), generator=generator)  # (B, T)


def save(folder: Path, model: Transformer) -> Path:
    save_model(folder, model)
    return folder


def spec_of(config: ModelConfig, tp_size: int, name: str = "tensorrt", **changes: object) -> EngineSpec:
    engine = EngineConfig.model_validate({"name": name, "tp_size": tp_size, "dtype": "float32", **changes})
    return EngineSpec.of(config, engine)
