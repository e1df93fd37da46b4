"""AdamW with decay on matrices only."""

import torch
from torch import Tensor, nn

from pipeline.config.training import TrainingConfig
from pipeline.models.initialise import is_layer_norm


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and embeddings decay; LayerNorm weights and biases do not.

    The paper decays tensors of two or more dimensions. Here every tensor of a block carries the way
    axis besides, so that a LayerNorm weight has two dimensions and is told by its name.
    """
    return parameter.dim() >= 2 and not is_layer_norm(name) and not name.endswith("bias")


def make_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over two groups, with and without weight decay; the fused kernel, on CPU and GPU."""
    named = list(model.named_parameters())
    groups = [
        {
            "params": [parameter for name, parameter in named if is_decayed(name, parameter)],
            "weight_decay": training.weight_decay,
        },
        {
            "params": [parameter for name, parameter in named if not is_decayed(name, parameter)],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(
        groups,
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=True,
    )


def clip(optimizer: torch.optim.AdamW, norm: Tensor, limit: float) -> None:
    """Have the next step scale gradients of norm `norm`, (), down to norm `limit`; 0 is no limit.

    The fused kernel divides them as it reads them: no pass over the gradients of its own, and no wait for the norm.
    """
    optimizer.grad_scale = ((norm + 1e-6) / limit).clamp(min=1.0) if limit else None  # type: ignore[attr-defined]
