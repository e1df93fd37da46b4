"""Attention and FFN side by side (GPT-J, PaLM): one blocking all-reduce a layer."""

from torch import Tensor

from pipeline.communication import Communicator
from pipeline.config.model import ModelConfig
from pipeline.models.block import Block, LocalShape
from pipeline.models.cache import LayerCache


class ParallelBlock(Block):
    """x + A(LN x) + F(LN x); both branches read the same LayerNorm."""

    biases = True

    def __init__(self, config: ModelConfig, shape: LocalShape, layer: int) -> None:
        super().__init__(config, shape, layer)
        del self.ln_2

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        normed = self.ln_1(x)  # (1, B, T, d)
        both: Tensor = self.needed(self.attn(normed, cache)) + self.mlp(self.needed(normed))
        out: Tensor = self.needed(x) + communicator.start(both).wait()
        return out
