"""The loss that training lowers."""

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models import Transformer


class LossModule(nn.Module):
    """Mean next-token loss of a micro-batch, in nats: what DDP and torch.compile wrap."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, windows: Tensor) -> Tensor:  # (B, T + 1) -> ()
        logits = self.model(windows[:, :-1])  # (B, T, V)
        return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
