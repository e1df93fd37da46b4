"""What every architecture's block is made of, and the facts that an architecture states beside its forward."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
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
        self.last_only = False  # set by the model while it runs: the head reads the last position alone
        self.layer = layer
        self.n_ways = config.n_ways  # N over all ranks, not the ways here
        self.layers_behind = config.n_layer - 1 - layer
        self.is_last = self.layers_behind == 0
        self.ln_1 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.attn = Attention(shape.n_ways, shape.n_head, shape.head_dim, config.n_embd, config.bias)
        self.ln_2 = WayLayerNorm(shape.n_ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.mlp = FeedForward(shape.n_ways, config.n_embd, shape.ffn_dim, config.bias)

    @classmethod
    def residual_branches(cls, config: ModelConfig) -> int:
        """Branches that add up in one residual: their output projections start at init_std / √branches."""
        return 2 * config.n_layer

    def needed(self, x: Any, skips: int = 0) -> Any:  # (W, B, T, d) -> the same, or (W, B, 1, d)
        """`x`, behind this layer's attention, or its last position where nothing reads more of it.

        That is on the way to a first token, in the last layer, and earlier where the attentions of the next `skips`
        layers do not read it either. What adds up must be narrowed alike.
        """
        return last_position(x) if self.last_only and skips >= self.layers_behind else x

    def forward(self, x: Any, communicator: Communicator, cache: LayerCache | None = None) -> Any:
        raise TypeError("Block holds parts; an architecture's subclass wires them")


def last_position(x: Any) -> Any:  # (W, B, T, d) -> (W, B, 1, d)
    """The position whose logits give the first token; of a single one itself."""
    return torch.narrow(x, 2, -1, 1)
