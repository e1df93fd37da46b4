"""Attention heads of a size that fused kernels support: padded with zeros, scaled as the true size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.placement import head_dim

SUPPORTED = (16, 32, 40, 48, 64, 72, 80, 96, 104, 128, 160, 192, 256)  # fused context attention, TensorRT-LLM 0.12-1.2


def engine_head_dim(config: ModelConfig, padding: bool) -> int:
    """The head size an engine computes with; raises ConfigError where no fused kernel has it."""
    true_size = head_dim(config)
    found = next((size for size in SUPPORTED if size >= true_size), None)
    sizes = ", ".join(map(str, SUPPORTED))
    if found is None:
        raise ConfigError(
            f"model={config.name}: heads {true_size} wide: fused attention kernels go up to {SUPPORTED[-1]}; "
            "more heads would be right"
        )
    if found != true_size and not padding:
        raise ConfigError(
            f"engine.head_padding=false: no fused attention kernel has heads {true_size} wide, as "
            f"{config.name} has; they have {sizes}. engine.head_padding=true pads to {found}"
        )
    return found


def pad_heads(name: str, tensor: Tensor, n_head: int, head_dim: int, padded: int) -> Tensor:
    """A parameter of one rank with every head `padded` wide; others come back as they are.

    `attn.qkv` (W, d, 3·h·hd) gets zero columns, `attn.out.weight` (W, h·hd, d) zero rows: scores and outputs
    are those of the true heads as long as the softmax scale is 1/√head_dim.
    """
    if padded == head_dim:
        return tensor
    extra = padded - head_dim
    if ".attn.qkv." in name:
        heads = tensor.reshape(*tensor.shape[:-1], 3, n_head, head_dim)  # (W, [d,] 3, h, hd)
        return F.pad(heads, (0, extra)).flatten(-3)
    if name.endswith(".attn.out.weight"):
        rows = tensor.reshape(tensor.shape[0], n_head, head_dim, tensor.shape[-1])  # (W, h, hd, d)
        return F.pad(rows, (0, 0, 0, extra)).flatten(1, 2)
    return tensor


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a configured name, as float16."""
    found: torch.dtype = getattr(torch, name)
    return found
