"""Cutting a whole model's tensors into one rank's part."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.placement import Placement, has_ways, local_shape

REPLICATED = ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", "lm_head.weight")
ROW_PARALLEL_BIASES = ("attn.out.bias", "mlp.down.bias")
WITH_FIRST = ("whole", "first rank")  # rules by which rank 0 has all there is
Rule = Literal["whole", "ways", "first rank", "heads", "columns", "rows"]
MEGATRON: dict[str, Rule] = {  # by how the name of a block's parameter begins
    "ln_": "whole",
    "attn.qkv.": "heads",
    "mlp.up.": "columns",
    "attn.out.weight": "rows",
    "mlp.down.weight": "rows",
}


class Sliceable(Protocol):
    """A tensor, or a tensor in a safetensors file of which only the slice is read."""

    def __getitem__(self, index: Any) -> Tensor: ...


def rule_of(name: str, config: ModelConfig) -> Rule:
    """How the tensor `name` is spread over more than one rank; raises ConfigError for a name no rule covers."""
    if name in REPLICATED:
        return "whole"
    if has_ways(config):
        return "ways"
    part = name.split(".", 2)[-1]
    if part in ROW_PARALLEL_BIASES:
        return "first rank"
    for start, rule in MEGATRON.items():
        if part.startswith(start):
            return rule
    raise ConfigError(
        f"model.architecture={config.architecture}: no rule to shard its parameter {name} over ranks; "
        'modules of an architecture\'s own need ways = "own" or "split", each way whole on a rank'
    )


def shard(name: str, source: Sliceable, shape: tuple[int, ...], config: ModelConfig, placement: Placement) -> Tensor:
    """Rank `placement.rank`'s part of the tensor `name`, whose whole shape is `shape`.

    Row-parallel biases live on rank 0 and are zero elsewhere, because the sum over ranks must hold
    them once. Raises ConfigError for a name no rule covers.
    """
    rank, tp_size = placement.rank, placement.tp_size
    rule = "whole" if tp_size == 1 else rule_of(name, config)
    if rule == "whole":
        return source[:]
    if rule == "ways":
        n_ways = local_shape(config, placement).n_ways
        return source[rank * n_ways : (rank + 1) * n_ways]
    if rule == "first rank":
        bias = source[:]
        return bias if rank == 0 else torch.zeros_like(bias)
    if rule == "heads":  # q, k and v are each cut by heads
        third = shape[-1] // 3
        step = third // tp_size
        starts = (third * i + rank * step for i in range(3))
        return torch.cat([source[..., start : start + step] for start in starts], dim=-1)
    if rule == "columns":
        step = shape[-1] // tp_size
        return source[..., rank * step : (rank + 1) * step]
    step = shape[-2] // tp_size  # rows of (1, in, out)
    return source[:, rank * step : (rank + 1) * step]


def unshard(name: str, parts: Sequence[Tensor], config: ModelConfig) -> Tensor:
    """The whole tensor `name` from all ranks' parts, in the order of ranks: what `shard` has cut."""
    rule = "whole" if len(parts) == 1 else rule_of(name, config)
    if rule in WITH_FIRST:
        return parts[0]
    if rule == "ways":
        return torch.cat([*parts])
    if rule == "heads":
        thirds = [part.chunk(3, dim=-1) for part in parts]
        return torch.cat([third[i] for i in range(3) for third in thirds], dim=-1)
    return torch.cat([*parts], dim=-1 if rule == "columns" else -2)


def shard_state(state: dict[str, Tensor], config: ModelConfig, placement: Placement) -> dict[str, Tensor]:
    """One rank's state dict from a whole one."""
    return {
        name: shard(name, tensor, tuple(tensor.shape), config, placement).contiguous() for name, tensor in state.items()
    }
