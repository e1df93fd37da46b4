"""Kraken (paper section 3): N independent ways a layer; one all-reduce a layer, free to run under attention."""

from torch import Tensor, nn

from pipeline.communication import Communicator
from pipeline.config.model import ModelConfig
from pipeline.models.block import Block, LocalShape
from pipeline.models.cache import LayerCache
from pipeline.models.layers import WayLinear


class KrakenConcat(nn.Module):
    """W_concat: (N·d -> d) as the sum over ways of x_i @ weight[i], so that rank i holds block i."""

    def __init__(self, config: ModelConfig, shape: LocalShape) -> None:
        super().__init__()
        self.project = WayLinear(shape.n_ways, config.n_embd, config.n_embd)

    def forward(self, x: Tensor, communicator: Communicator) -> Tensor:  # (W, B, T, d) -> (1, B, T, d)
        partial = self.project(x).sum(0, keepdim=True)
        return communicator.start(partial).wait()


class KrakenBlock(Block):
    """One layer of every way here. The sum of the ways feeds LN2 and the FFN, never a residual."""

    ways = "own"
    concat = KrakenConcat

    @classmethod
    def residual_branches(cls, config: ModelConfig) -> int:
        return 2 * config.n_layer * config.n_ways  # paper facts, section 1, point 7

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        if self.layer == 0:  # (1, B, T, d) in: all ways start from the embedding, nothing crosses
            a = x + self.attn(self.ln_1(x), cache)  # (W, B, T, d)
            first: Tensor = a + self.mlp(self.ln_2(a))
            return first
        ways_sum = communicator.start(x.sum(0, keepdim=True))  # (1, B, T, d), a copy: x stays the residual
        h = self.attn(self.ln_1(x), cache)  # (W, B, T, d), while the sum is on its way
        u = h + ways_sum.wait()  # = a + the other ways' outputs of the previous layer
        out: Tensor = x + h + self.mlp(self.ln_2(u))
        return out
