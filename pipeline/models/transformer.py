"""The whole model: embeddings, a stack of one architecture's blocks, and the head."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.communication import LOCAL, Communicator
from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.architectures import block_of
from pipeline.models.block import Block, last_position
from pipeline.models.cache import KeyValueCache
from pipeline.models.layers import WayLayerNorm
from pipeline.models.placement import WHOLE, Placement, local_shape


class Head(nn.Module):
    """A head's own weight, (V, d), where it is not the embedding's."""

    def __init__(self, vocab_size: int, n_embd: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_empty(vocab_size, n_embd))


class Transformer(nn.Module):
    """A decoder-only language model, or one rank's part of it.

    The same lines run in one process that holds all ways, on ranks that hold some, and on Megatron
    shards: only `placement` (what is built) and the communicator (what is awaited) differ.
    Weights are uninitialised until `pipeline.models.build` fills or loads them.
    """

    def __init__(self, config: ModelConfig, placement: Placement = WHOLE) -> None:
        super().__init__()
        self.config = config
        self.placement = placement
        self.shape = local_shape(config, placement)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd, _weight=_empty(config.vocab_size, config.n_embd))
        self.wpe = (
            nn.Embedding(config.block_size, config.n_embd, _weight=_empty(config.block_size, config.n_embd))
            if config.position == "learned"
            else None
        )
        block = block_of(config.architecture)
        self.blocks = nn.ModuleList(block(config, self.shape, layer) for layer in range(config.n_layer))
        self.concat = block.concat(config, self.shape) if block.concat is not None else None
        self.ln_f = WayLayerNorm(1, config.n_embd, config.layer_norm_eps, config.bias)
        self.lm_head = None if config.tie_embeddings else Head(config.vocab_size, config.n_embd)
        for name, module in self.named_modules():  # initialised and decayed by their names
            if isinstance(module, WayLayerNorm) and not name.rpartition(".")[2].startswith("ln_"):
                raise ConfigError(f"model.architecture={config.architecture}: name its LayerNorm {name} ln_…")

    def forward(
        self,
        tokens: Tensor,  # (B, T)
        communicator: Communicator = LOCAL,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits, (B, T, V), or (B, 1, V) of the last position with `last_only`.

        With a cache, `tokens` continue what it holds. Raises ValueError beyond block_size.
        """
        return self.logits(self.hidden(tokens, communicator, cache, last_only))

    def hidden(
        self,
        tokens: Tensor,  # (B, T)
        communicator: Communicator = LOCAL,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """What the head reads: LN_f of the final stream, (B, T, d) or (B, 1, d)."""
        start = 0 if cache is None else cache.length
        end = start + tokens.shape[1]
        if end > self.config.block_size:
            raise ValueError(f"context of {end} tokens: block_size is {self.config.block_size}")
        x: Any = self.embed(tokens, 0 if cache is None else cache.positions)  # (1, B, T, d)
        if last_only:  # (1 or W, B, T, d) -> (1 or W, B, 1, d)
            x = self.last(self._for_the_last(x, communicator, cache))
        else:
            x = self._through_blocks(x, communicator, cache)
        if self.concat is not None:
            x = self.concat(x, communicator)  # (1, B, T, d)
        return self.single(self.ln_f(x))

    def _through_blocks(self, x: Any, communicator: Communicator, cache: KeyValueCache | None) -> Any:
        for index, block in enumerate(self.blocks):
            x = block(x, communicator, None if cache is None else cache.layers[index])
        return x

    def _for_the_last(self, x: Any, communicator: Communicator, cache: KeyValueCache | None) -> Any:
        """The same, for the last position alone. Afterwards blocks are as before: compiled ones see no change."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        for block in blocks:
            block.last_only = True
        try:
            return self._through_blocks(x, communicator, cache)
        finally:
            for block in blocks:
                block.last_only = False

    def single(self, x: Tensor) -> Tensor:  # (1, B, T, d) -> (B, T, d)
        """A stream that all ways share, without their axis."""
        return x[0]

    def embed(self, tokens: Tensor, start: int | Tensor) -> Tensor:  # (B, T), start one or (B, 1) -> (1, B, T, d)
        """Token plus position embedding, where there is one. `start` is the first one's, or each single token's own."""
        embedded: Tensor = self.wte(tokens)
        if self.wpe is not None:
            one_each = isinstance(start, Tensor)
            embedded = embedded + (self.wpe(start) if one_each else self.wpe.weight[start : start + tokens.shape[1]])
        return embedded.unsqueeze(0)

    def last(self, x: Tensor) -> Tensor:  # (W, B, T, d) -> (W, B, 1, d)
        """The position whose logits give the first token."""
        position: Tensor = last_position(x)
        return position

    def logits(self, hidden: Tensor, tokens: range | None = None) -> Tensor:  # (B, T, d) -> (B, T, V)
        """Of the whole vocabulary, or of some `tokens` of it: their rows of the head, which are not copied."""
        weight = self.head_weight if tokens is None else self.head_weight[tokens.start : tokens.stop]
        return F.linear(hidden, weight)

    @property
    def head_weight(self) -> Tensor:
        """What the head multiplies with, (V, d): the token embedding, or a weight of its own."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def new_cache(self, batch_size: int, capacity: int | None = None) -> KeyValueCache:
        """An empty cache for this rank's ways and heads, with the weights' device and type."""
        weight = self.wte.weight
        return KeyValueCache(
            self.config.n_layer,
            self.shape.n_ways,
            batch_size,
            self.shape.n_head,
            capacity or self.config.block_size,
            self.shape.head_dim,
            weight.device,
            weight.dtype,
        )


def _empty(rows: int, columns: int) -> Tensor:
    return torch.empty(rows, columns)
