"""What every architecture's block is made of, and the facts that an architecture states beside its forward."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from pipeline.communication import Communicator
from pipeline.config.model import ModelConfig
from pipeline.models.cache import LayerCache
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm

# none: one stream, sharded over ranks as Megatron does. own: every way is a whole small block of width n_embd.
# split: the ways share out one block's heads and FFN columns, each at full width.
Ways = Literal["none", "own", "split"]


@dataclass(frozen=True)
class LocalShape:
    """Sizes of one rank's part; heads and FFN width are per way."""

    n_ways: int
    n_head: int
    head_dim: int
    ffn_dim: int


class Block(nn.Module):
    """One layer. A subclass in pipeline/models/architectures wires the parts in `forward`.

    A block maps a state to the next. The first gets the embedding, (1, B, T, d), the last hands on the streams that
    the head reads, (1, B, T, d) or (W, B, T, d); what stands between is the architecture's own affair.
    Everything else that is known of an architecture (FLOPs, collectives, timelines, networks) is derived by running
    its forward on other values: see pipeline/models/values.py for what a forward may use.
    """

    ways: ClassVar[Ways] = "none"
    biases: ClassVar[bool] = False  # whether linears and LayerNorms may have them
    mixes: ClassVar[bool] = False  # whether mixing, mixes_first_layer and init_over_ways are for it to heed
    weights_of: ClassVar[str | None] = None  # another architecture whose weights and outputs these are
    concat: ClassVar[type[nn.Module] | None] = None  # (config, shape) -> module: last streams -> (1, B, T, d)

    def __init__(self, config: ModelConfig, shape: LocalShape, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_ways = config.n_ways  # N over all ranks, not the ways here
        self.is_last = layer == config.n_layer - 1
        self.ln_1 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.attn = Attention(shape.n_ways, shape.n_head, shape.head_dim, config.n_embd, config.bias)
        self.ln_2 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.mlp = FeedForward(shape.n_ways, config.n_embd, shape.ffn_dim, config.bias)

    @classmethod
    def residual_branches(cls, config: ModelConfig) -> int:
        """Branches that add up in one residual: their output projections start at init_std / √branches."""
        return 2 * config.n_layer

    def forward(self, x: Any, communicator: Communicator, cache: LayerCache | None = None) -> Any:
        raise TypeError("Block holds parts; an architecture's subclass wires them")
