"""The keys and values of earlier tokens, so that a forward computes new tokens only."""

import torch
from torch import Tensor

from pipeline.models.attention import causal_attention


class LayerCache:
    """One layer's keys and values, (W·B, h, capacity, hd), filled from the left."""

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys = keys
        self.values = values
        self.length = length

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (W·B, h, T, hd)
        """Store k and v behind what is there; attention of q over all of it, causal."""
        start, end = self.length, self.length + k.shape[2]
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.length = end
        return causal_attention(q, self.keys[:, :, :end], self.values[:, :, :end])


class PromptMemory:
    """Keys and values of one prompt that is read in chunks, where no cache keeps them."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (W·B, h, t, hd)
        """Put k and v behind the earlier chunks'; attention of q over all of it, causal."""
        if self.keys is not None and self.values is not None:
            k, v = torch.cat([self.keys, k], dim=2), torch.cat([self.values, v], dim=2)
        self.keys, self.values = k, v
        return causal_attention(q, k, v)


class KeyValueCache:
    """All layers' caches for sequences of at most `capacity` tokens.

    `n_ways` and `n_head` (per way) are those of this rank.
    """

    def __init__(
        self,
        n_layer: int,
        n_ways: int,
        batch_size: int,
        n_head: int,
        capacity: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (n_ways * batch_size, n_head, capacity, head_dim)
        self.capacity = capacity
        self.n_ways = n_ways
        self.layers = [
            LayerCache(torch.empty(shape, device=device, dtype=dtype), torch.empty(shape, device=device, dtype=dtype))
            for _ in range(n_layer)
        ]

    @property
    def length(self) -> int:
        """Tokens stored so far, the same in every layer between forwards."""
        return self.layers[-1].length

    @property
    def positions(self) -> int | Tensor:
        """Where the next tokens stand: the first one's place, or (B, 1) places where sequences differ in length."""
        return self.length

    def truncate(self, length: int) -> None:
        """Forget everything behind the first `length` tokens."""
        for layer in self.layers:
            layer.length = length

    def select(self, rows: Tensor, capacity: int | None = None) -> "KeyValueCache":  # rows (R,) of 0 … B-1
        """A copy that holds these sequences, in this order and as often as they are named, with room for `capacity`."""
        copy = object.__new__(KeyValueCache)
        copy.capacity = capacity or self.capacity
        copy.n_ways = self.n_ways
        copy.layers = [self._select_layer(layer, rows, copy.n_ways, copy.capacity) for layer in self.layers]
        return copy

    @staticmethod
    def _select_layer(layer: LayerCache, rows: Tensor, n_ways: int, capacity: int) -> LayerCache:
        batch = layer.keys.shape[0] // n_ways
        index = (torch.arange(n_ways, device=rows.device)[:, None] * batch + rows[None, :]).flatten()  # way-major
        pair = []
        for stored in (layer.keys, layer.values):
            _, heads, _, head_dim = stored.shape
            room = stored.new_empty(len(index), heads, capacity, head_dim)
            room[:, :, : layer.length] = stored[:, :, : layer.length][index]
            pair.append(room)
        return LayerCache(pair[0], pair[1], layer.length)
