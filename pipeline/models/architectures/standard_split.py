"""The standard model on another schedule: the prompt in two chunks, each one's sums under the other's modules.

The idea of ISO (arXiv 2409.11155) and TokenWeave (arXiv 2505.11329): exact, with the standard model's weights and
logits, and 4L sums of half the size of which all but the last have a module to hide under. To a first token the last
layer is the second chunk's alone: two sums of one position, which nothing hides, are left of its four.
"""

from dataclasses import dataclass

from torch import Tensor

from pipeline.communication import Communicator, Handle
from pipeline.models.architectures.standard import StandardBlock
from pipeline.models.cache import LayerCache, PromptMemory
from pipeline.models.layers import join_tokens, split_tokens


@dataclass(frozen=True)
class Chunk:
    """One half of the prompt: its residual, (1, B, t, d), and the sum on its way to it."""

    residual: Tensor
    pending: Handle | None = None

    def settled(self) -> Tensor:
        return self.residual if self.pending is None else self.residual + self.pending.wait()


class StandardSplitBlock(StandardBlock):
    """The standard block for two chunks in turn: while one chunk's sum travels, the other's module computes."""

    weights_of = "standard"

    def forward(  # type: ignore[override]  # between layers the state is two chunks
        self, x: Tensor | tuple[Chunk, ...], communicator: Communicator, cache: LayerCache | None = None
    ) -> Tensor | tuple[Chunk, ...]:
        if not isinstance(x, tuple):
            if x.shape[2] == 1:  # a single token, as in decoding, is no two chunks
                return super().forward(x, communicator, cache)
            x = tuple(Chunk(half) for half in split_tokens(x))
        memory = PromptMemory() if cache is None else cache  # the second chunk attends to the first one's keys, values

        def attention(x: Tensor) -> Tensor:
            out: Tensor = self.needed(self.attn(self.ln_1(x), memory))
            return out

        def ffn(x: Tensor) -> Tensor:
            out: Tensor = self.mlp(self.ln_2(x))
            return out

        if self.last_only and self.is_last:  # of the first chunk the second still needs keys and values, no more
            self.attn(self.ln_1(x[0].settled()), memory)
            x = x[1:]
        for module in (attention, ffn):
            settled = (chunk.settled() for chunk in x)  # each waits just before its own turn
            x = tuple(Chunk(self.needed(half), communicator.start(module(half))) for half in settled)
        if not self.is_last:
            return x
        halves = [chunk.settled() for chunk in x]
        return join_tokens(halves) if len(halves) > 1 else halves[0]
