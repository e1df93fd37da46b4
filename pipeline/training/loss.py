"""The loss that training lowers."""

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.communication import LOCAL, Communicator
from pipeline.models import Transformer
from pipeline.models.generate import generate


def summed_cross_entropy(
    hidden: Tensor,  # (R, d)
    weight: Tensor,  # (V, d)
    targets: Tensor,  # (R,)
) -> Tensor:
    """Sum of the rows' next-token losses, in nats, () float32."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")


class LossModule(nn.Module):
    """Mean next-token loss of a micro-batch, in nats: what is wrapped for data-parallel workers and compiled.

    Over tensor-parallel ranks each one's result is its share of the rows; their sum is the mean.
    """

    def __init__(self, model: Transformer, communicator: Communicator = LOCAL) -> None:
        super().__init__()
        self.model = model
        self.communicator = communicator

    def forward(self, windows: Tensor) -> Tensor:  # (B, T + 1) -> ()
        hidden = self.model.hidden(windows[:, :-1], self.communicator).flatten(0, 1)  # (B·T, d)
        targets = windows[:, 1:].flatten()  # (B·T,)
        rank, tp_size = self.model.placement.rank, self.model.placement.tp_size
        share = slice(rank * len(targets) // tp_size, (rank + 1) * len(targets) // tp_size)
        return summed_cross_entropy(hidden[share], self.model.wte.weight, targets[share]) / len(targets)

    def generate(self, prompt: Tensor, new_tokens: int, seed: int) -> Tensor:  # (B, T) -> (B, T + new_tokens)
        """A continuation, drawn on all ranks alike."""
        return generate(self.model, prompt, new_tokens, seed=seed, communicator=self.communicator)
