"""Making a model: whole or one rank's part, initialised or empty, on any device."""

import torch

from pipeline.config.model import ModelConfig
from pipeline.models.initialise import initialise
from pipeline.models.placement import WHOLE, Placement
from pipeline.models.shard import rule_of
from pipeline.models.transformer import Transformer


def build_model(
    config: ModelConfig,
    placement: Placement = WHOLE,
    seed: int | None = 1337,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A model with the paper's initial weights; seed None leaves them undefined, to be loaded.

    Raises ConfigError where a rank's part holds a parameter that no rule of sharding covers.
    """
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Transformer(config, placement)
    finally:
        torch.set_default_dtype(previous)
    if placement.tp_size > 1:
        for name, _ in model.named_parameters():
            rule_of(name, config)
    if seed is not None:
        with torch.no_grad():
            initialise(model, seed)
    return model


def check_part(config: ModelConfig, tp_size: int) -> None:
    """Raise ConfigError where `tp_size` ranks cannot hold a model's parts; a layer shows it."""
    build_model(config.model_copy(update={"n_layer": 1}), Placement(0, tp_size), seed=None, device="meta")
