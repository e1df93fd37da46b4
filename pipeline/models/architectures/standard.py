"""The standard pre-LN block (GPT-2), sharded as Megatron does: two blocking all-reduces a layer."""

from torch import Tensor, nn

from pipeline.communication import Communicator
from pipeline.config.model import ModelConfig
from pipeline.models.cache import LayerCache
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm
from pipeline.models.placement import LocalShape


class Block(nn.Module):
    """The parts of every block; an architecture says in `forward` how they are wired.

    A block maps a state to the next; the state of most architectures is the residual stream,
    (1, B, T, d), or (W, B, T, d) with a stream per way.
    """

    def __init__(self, config: ModelConfig, shape: LocalShape, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.ln_1 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.attn = Attention(shape.n_ways, shape.n_head, shape.head_dim, config.n_embd, config.bias)
        self.ln_2 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.mlp = FeedForward(shape.n_ways, config.n_embd, shape.ffn_dim, config.bias)

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        raise TypeError("Block holds parts; an architecture's subclass wires them")


class StandardBlock(Block):
    """x + A(LN1 x), then + F(LN2 ·)."""

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Tensor:
        x = x + communicator.start(self.attn(self.ln_1(x), cache)).wait()  # (1, B, T, d)
        return x + communicator.start(self.mlp(self.ln_2(x))).wait()
