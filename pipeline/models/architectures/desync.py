"""Desync Residual (arXiv 2501.06589): the attention all-reduce is dropped, the FFN's is kept."""

from torch import Tensor

from pipeline.communication import Communicator
from pipeline.models.block import Block
from pipeline.models.cache import LayerCache


class DesyncBlock(Block):
    """y_i = x + A_i(LN1_i x); x = sum over ways of F_i(LN2_i y_i) + y_i / N."""

    ways = "split"

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        attended = self.needed(self.attn(self.ln_1(x), cache))  # (1, B, T, d) -> (W, B, T, d), or (W, B, 1, d)
        y = self.needed(x) + attended
        partial = self.mlp(self.ln_2(y)) + y / self.n_ways
        return communicator.start(partial.sum(0, keepdim=True)).wait()
