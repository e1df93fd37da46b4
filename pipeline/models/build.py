"""Making a model: whole or one rank's part, initialised or empty, on any device."""

import torch

from pipeline.config.model import ModelConfig
from pipeline.models.initialise import initialise
from pipeline.models.placement import WHOLE, Placement
from pipeline.models.transformer import Transformer


def build_model(
    config: ModelConfig,
    placement: Placement = WHOLE,
    seed: int | None = 1337,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A model with the paper's initial weights; seed None leaves them undefined, to be loaded."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Transformer(config, placement)
    finally:
        torch.set_default_dtype(previous)
    if seed is not None:
        with torch.no_grad():
            initialise(model, seed)
    return model
