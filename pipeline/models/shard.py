"""Cutting a whole model's tensors into one rank's part, and putting parts together again."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.config.model import ARCHITECTURES_WITH_WAYS, ModelConfig
from pipeline.models.placement import Placement, local_shape

REPLICATED = ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")


def shard(
    name: str, read: Callable[[slice, slice], Tensor], whole: tuple[int, ...], config: ModelConfig, placement: Placement
) -> Tensor:
    """Rank `placement.rank`'s part of the tensor `name`.

    `read(first_axis, last_axis)` returns a slice of the whole tensor, so that a file need not be read
    in full; `whole` is its shape. Row-parallel biases live on rank 0 and are zero elsewhere, because
    the sum over ranks must hold them once.
    """
    everything = slice(None)
    if placement.tp_size == 1 or name in REPLICATED:
        return read(everything, everything)
    if config.architecture in ARCHITECTURES_WITH_WAYS:
        n_ways = local_shape(config, placement).n_ways
        return read(slice(placement.rank * n_ways, (placement.rank + 1) * n_ways), everything)
    part = name.split(".", 2)[-1]
    if part.startswith("ln_"):
        return read(everything, everything)
    if part in ("attn.out.bias", "mlp.down.bias"):
        bias = read(everything, everything)
        return bias if placement.rank == 0 else torch.zeros_like(bias)
    if part in ("attn.qkv.weight", "attn.qkv.bias"):
        third = whole[-1] // 3  # q, k and v are each cut by heads
        step = third // placement.tp_size
        starts = (third * i + placement.rank * step for i in range(3))
        return torch.cat([read(everything, slice(start, start + step)) for start in starts], dim=-1)
    if part in ("mlp.up.weight", "mlp.up.bias"):
        step = whole[-1] // placement.tp_size
        return read(everything, slice(placement.rank * step, (placement.rank + 1) * step))
    if part in ("attn.out.weight", "mlp.down.weight"):  # (1, in, out), cut by rows
        step = whole[-2] // placement.tp_size
        return read(everything, everything)[:, placement.rank * step : (placement.rank + 1) * step]
    raise KeyError(f"no rule to shard {name} of a {config.architecture} model")


def shard_state(state: dict[str, Tensor], config: ModelConfig, placement: Placement) -> dict[str, Tensor]:
    """One rank's state dict from a whole one."""
    return {
        name: shard(
            name, lambda first, last, t=tensor: _slice(t, first, last), tuple(tensor.shape), config, placement
        ).contiguous()  # type: ignore[misc]
        for name, tensor in state.items()
    }


def _slice(tensor: Tensor, first: slice, last: slice) -> Tensor:
    return tensor[first][..., last]
