"""The paper's initial weights, drawn the same whatever the placement."""

import math
import zlib

import torch

from pipeline.config.model import ModelConfig
from pipeline.models.architectures import block_of
from pipeline.models.transformer import Transformer

RESIDUAL_PROJECTIONS = ("attn.out.weight", "mlp.down.weight")


def initialise(model: Transformer, seed: int) -> None:
    """Fill `model` in place: N(0, 0.02), attention-out and FFN-out with 0.02/√(2·L·N), LayerNorms one
    (see init_std and init_over_ways of the configuration).

    Each way draws from a generator of its own, named by seed, parameter and way, so that a Kraken
    model over ranks starts with the numbers of the same model in one process. Megatron shards draw
    per rank: random weights for timing need no whole model anywhere.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
        elif is_layer_norm(name):
            torch.nn.init.ones_(parameter)
        elif parameter.is_meta:
            continue
        else:
            _draw(parameter, name, model, seed)


def is_layer_norm(name: str) -> bool:
    """Whether a parameter belongs to a LayerNorm: never decayed, though it carries the way axis."""
    return name.split(".")[-2].startswith("ln_")


def standard_deviation(name: str, config: ModelConfig) -> float:
    """Initial standard deviation of a matrix (paper facts, section 1, point 7)."""
    if name.endswith(RESIDUAL_PROJECTIONS):
        return config.init_std / math.sqrt(block_of(config.architecture).residual_branches(config))
    return config.init_std


def _draw(parameter: torch.nn.Parameter, name: str, model: Transformer, seed: int) -> None:
    std = standard_deviation(name, model.config)
    placement = model.placement
    slices: list[torch.Tensor] = [parameter.data]
    first = 0
    if parameter.dim() == 3:  # one slice a way; a Megatron shard counts as way number `rank`
        slices = list(parameter.data.unbind(0))
        first = placement.rank * model.shape.n_ways
    for index, part in enumerate(slices):
        generator = torch.Generator(device=part.device)
        generator.manual_seed(zlib.crc32(f"{seed}/{name}/{first + index}".encode()))
        part.normal_(0.0, std, generator=generator)
