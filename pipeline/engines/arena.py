"""Random weights of several models in the same memory, for timing models that do not fit beside each other.

The time of a forward does not depend on the weights' values, so architectures that take turns may read the same
random numbers. Their outputs mean nothing, as with any random weights.
"""

import torch
from torch import Tensor, nn

from pipeline.config.model import ModelConfig
from pipeline.models import Placement, Transformer, build_model
from pipeline.models.initialise import is_layer_norm

ALIGNMENT = 256  # elements; keeps every matrix on the boundary an allocation of its own would have


def arena_size(config: ModelConfig, placement: Placement) -> int:
    """Elements that one rank's matrices of a model take."""
    model = build_model(config, placement, seed=None, device="meta")
    return sum(_padded(parameter.numel()) for name, parameter in model.named_parameters() if _is_matrix(name))


def make_arena(elements: int, std: float, seed: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """(elements,) of N(0, std)."""
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.empty(elements, device=device, dtype=dtype).normal_(0.0, std, generator=generator)


def build_on_arena(config: ModelConfig, placement: Placement, arena: Tensor) -> Transformer:
    """A model whose matrices are views of `arena` from its start; raises ValueError where it is too small."""
    model = build_model(config, placement, seed=None, device="meta", dtype=arena.dtype)
    offset = 0
    for name, parameter in list(model.named_parameters()):
        if _is_matrix(name):
            if offset + parameter.numel() > arena.numel():
                raise ValueError(f"{config.name} needs more than the {arena.numel()} elements of the arena")
            tensor = arena[offset : offset + parameter.numel()].view(parameter.shape)
            offset += _padded(parameter.numel())
        elif name.endswith("bias"):
            tensor = torch.zeros(parameter.shape, device=arena.device, dtype=arena.dtype)
        else:
            tensor = torch.ones(parameter.shape, device=arena.device, dtype=arena.dtype)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(tensor, requires_grad=False))
    return model


def _is_matrix(name: str) -> bool:
    return name.endswith("weight") and not is_layer_norm(name)


def _padded(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT
