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
    """One layer of every way here. The sum of the ways feeds LN2 and the FFN; a residual by mixing=residual alone."""

    ways = "own"
    mixes = True
    concat = KrakenConcat

    def __init__(self, config: ModelConfig, shape: LocalShape, layer: int) -> None:
        super().__init__(config, shape, layer)
        self.mixing, self.ways_here = config.mixing, shape.n_ways
        self.is_alone = self.mixing == "none" or (layer == 0 and not config.mixes_first_layer)

    @classmethod
    def residual_branches(cls, config: ModelConfig) -> int:
        return 2 * config.n_layer * (config.n_ways if config.init_over_ways else 1)  # paper facts, section 1, point 7

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        if self.is_alone:  # nothing crosses, as in the paper's first layer: all ways start from the embedding
            a = self.needed(x) + self.needed(self.attn(self.ln_1(x), cache))  # (1 or W, B, T, d) -> (W, B, T, d)
            alone: Tensor = a + self.mlp(self.ln_2(a))
            return alone
        before = self.needed(x)  # the last layer's sum carries one position of a prompt
        here = before.sum(0, keepdim=True)  # (1, B, T, d), a copy: x stays the residual
        if self.layer == 0:  # (1, B, T, d) in, and every way's: the sum holds it once for each way
            here = here * self.ways_here
        ways_sum = communicator.start(here)
        h = self.needed(self.attn(self.ln_1(x), cache))  # (W, B, T, d), while the sum is on its way
        total = ways_sum.wait()
        u = h + (total / self.n_ways if self.mixing == "mean" else total)  # sum: a + the other ways' last outputs
        residual = u if self.mixing == "residual" else before + h
        out: Tensor = residual + self.mlp(self.ln_2(u))
        return out
