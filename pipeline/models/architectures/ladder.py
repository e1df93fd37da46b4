"""Ladder Residual (arXiv 2501.06589): each module reads the residual without the module just before it."""

from dataclasses import dataclass

from torch import Tensor

from pipeline.communication import Communicator, Handle
from pipeline.models.architectures.standard import Block
from pipeline.models.cache import LayerCache


@dataclass(frozen=True)
class LadderState:
    """The residual, (1, B, T, d), and the two sums still on their way to it."""

    residual: Tensor
    attention: Handle | None = None
    ffn: Handle | None = None

    def settled(self) -> Tensor:
        """The residual with both sums added: after the last layer."""
        x = self.residual
        for pending in (self.attention, self.ffn):
            if pending is not None:
                x = x + pending.wait()
        return x


class LadderBlock(Block):
    """Two all-reduces a layer, each with a whole module to hide under."""

    def forward(  # type: ignore[override]  # the state carries two pending sums beside the residual
        self, state: LadderState, communicator: Communicator, cache: LayerCache | None = None
    ) -> LadderState:
        x = state.residual
        if state.attention is not None:
            x = x + state.attention.wait()
        attention = communicator.start(self.attn(self.ln_1(x), cache))
        if state.ffn is not None:
            x = x + state.ffn.wait()
        return LadderState(x, attention, communicator.start(self.mlp(self.ln_2(x))))
