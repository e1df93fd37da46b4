"""The standard pre-LN block (GPT-2), sharded as Megatron does: two blocking all-reduces a layer."""

from torch import Tensor

from pipeline.communication import Communicator
from pipeline.models.block import Block
from pipeline.models.cache import LayerCache


class StandardBlock(Block):
    """x + A(LN1 x), then + F(LN2 ·)."""

    biases = True

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        attended = self.needed(self.attn(self.ln_1(x), cache))  # (1, B, T, d), or (1, B, 1, d)
        x = self.needed(x) + communicator.start(attended).wait()
        return x + communicator.start(self.mlp(self.ln_2(x))).wait()
