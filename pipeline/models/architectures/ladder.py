"""Ladder Residual (arXiv 2501.06589): each module reads the residual without the module just before it."""

from dataclasses import dataclass

from torch import Tensor

from pipeline.communication import Communicator, Handle
from pipeline.models.block import Block
from pipeline.models.cache import LayerCache


@dataclass(frozen=True)
class LadderState:
    """Between layers: the residual, (1, B, T, d), and the two sums still on their way to it."""

    residual: Tensor
    attention: Handle
    ffn: Handle


class LadderBlock(Block):
    """Two all-reduces a layer, each with a whole module to hide under."""

    def forward(
        self, state: Tensor | LadderState, communicator: Communicator, cache: LayerCache | None = None
    ) -> Tensor | LadderState:
        x = state.residual + state.attention.wait() if isinstance(state, LadderState) else state
        attention = communicator.start(self.needed(self.attn(self.ln_1(x), cache)))
        x = self.needed(x)
        if isinstance(state, LadderState):  # the first layer has nothing to wait for
            x = x + state.ffn.wait()
        ffn = communicator.start(self.mlp(self.ln_2(self.needed(x, skips=1))))  # the next attention reads x without it
        return x + attention.wait() + ffn.wait() if self.is_last else LadderState(x, attention, ffn)
