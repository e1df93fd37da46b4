"""Keys and values of several sequences at a time, each of a length of its own: what serving decodes from."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.cache import KeyValueCache, LayerCache
from pipeline.models.transformer import Transformer


class SlotCache:
    """S slots for sequences of at most `capacity` tokens each, in one block of memory a layer, (W·S, h, capacity, hd).

    `sequences[s]` is slot s as a cache of its own, which a prefill fills; `running` is some slots as one batch.
    """

    def __init__(self, model: Transformer, n_slots: int, capacity: int) -> None:
        self.n_slots = n_slots
        self.whole = model.new_cache(n_slots, capacity)
        for layer in self.whole.layers:  # what lies behind a short sequence is masked, but 0 × NaN would be NaN
            layer.keys.zero_()
            layer.values.zero_()
        self.sequences = [_Sequence(self.whole, n_slots, slot) for slot in range(n_slots)]

    def running(self, slots: Sequence[int]) -> KeyValueCache:
        """The cache of one decode step of these slots, in this order: one more token for each of them."""
        return _Running(self, slots)


class _Sequence(KeyValueCache):
    """One slot's rows of every layer, filled in place."""

    def __init__(self, whole: KeyValueCache, n_slots: int, slot: int) -> None:
        self.capacity, self.n_ways = whole.capacity, whole.n_ways
        self.layers = [LayerCache(layer.keys[slot::n_slots], layer.values[slot::n_slots]) for layer in whole.layers]


class _Running(KeyValueCache):
    """Some slots as a batch of R sequences, each at a position of its own."""

    def __init__(self, cache: SlotCache, slots: Sequence[int]) -> None:
        whole = cache.whole
        self.capacity, self.n_ways = whole.capacity, whole.n_ways
        sequences = [cache.sequences[slot] for slot in slots]
        lengths = [sequence.length for sequence in sequences]
        self.longest = max(lengths)
        device = whole.layers[0].keys.device
        at = torch.tensor(lengths, device=device)  # (R,)
        self._positions = at[:, None]
        ways = torch.arange(self.n_ways, device=device)[:, None]
        rows = (ways * cache.n_slots + torch.tensor(slots, device=device)).flatten()  # (W·R,), way-major
        step = _Step(
            rows=None if list(slots) == list(range(cache.n_slots)) else rows,
            where=(rows, at.repeat(self.n_ways)),
            end=self.longest + 1,
            mask=None if min(lengths) == self.longest else _mask(at, self.longest + 1).repeat(self.n_ways, 1, 1, 1),
        )
        self.layers = [
            _RunningLayer(layer, step, [sequence.layers[index] for sequence in sequences])
            for index, layer in enumerate(whole.layers)
        ]

    @property
    def length(self) -> int:
        """Of the longest sequence, before the step."""
        return self.longest

    @property
    def positions(self) -> Tensor:  # (R, 1)
        return self._positions


class _Step:
    """What all layers of one decode step share."""

    def __init__(self, rows: Tensor | None, where: tuple[Tensor, Tensor], end: int, mask: Tensor | None) -> None:
        self.rows = rows  # (W·R,) of the W·S; None: all, in order, which need no copy
        self.where = where  # row and position, (W·R,) each, of the new keys and values
        self.end = end  # positions that the longest sequence sees
        self.mask = mask  # (W·R, 1, 1, end), what each row sees; None: everything


class _RunningLayer(LayerCache):
    """One layer of a decode step."""

    def __init__(self, layer: LayerCache, step: _Step, sequences: Sequence[LayerCache]) -> None:
        super().__init__(layer.keys, layer.values)
        self.step, self.sequences = step, sequences

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (W·R, h, 1, hd)
        """Store each sequence's k and v behind its own; attention of q over what its sequence holds."""
        rows, at = self.step.where
        seen = []
        for stored, new in ((self.keys, k), (self.values, v)):
            stored[rows, :, at] = new[:, :, 0]
            part = stored[:, :, : self.step.end]
            seen.append(part if self.step.rows is None else part[self.step.rows])
        for sequence in self.sequences:
            sequence.length += 1
        return F.scaled_dot_product_attention(q, seen[0], seen[1], attn_mask=self.step.mask)


def _mask(at: Tensor, end: int) -> Tensor:  # (R,) -> (R, 1, 1, end)
    """A sequence whose new token stands at position p sees 0 … p."""
    return (torch.arange(end, device=at.device) <= at[:, None])[:, None, None]
