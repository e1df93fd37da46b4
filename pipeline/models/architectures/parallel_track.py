"""Parallel Track (arXiv 2602.07306): N tracks at full width that meet every D layers, in their mean."""

from torch import Tensor

from pipeline.communication import Communicator
from pipeline.config.model import ModelConfig
from pipeline.models.block import Block, LocalShape
from pipeline.models.cache import LayerCache


class ParallelTrackBlock(Block):
    """x ← x + A(LN1 x), x ← x + F(LN2 x) on every track; after every D layers, and the last, their mean."""

    ways = "split"

    def __init__(self, config: ModelConfig, shape: LocalShape, layer: int) -> None:
        super().__init__(config, shape, layer)
        self.meets = self.is_last or (layer + 1) % config.track_depth == 0

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        attended = self.needed(self.attn(self.ln_1(x), cache))  # (1 or W, B, T, d) -> (W, B, T, d), or (W, B, 1, d)
        x = self.needed(x) + attended
        x = x + self.mlp(self.ln_2(x))
        return communicator.start(x.sum(0, keepdim=True)).wait() / self.n_ways if self.meets else x
