"""A model's own forward, run on a network that is being written: the same text for whole and segmented engines.

A layer is cut behind its attention, in every architecture, so that what a launch costs is the same on all sides; and
behind what starts a sum, so that the sum is under way while the next segment runs.
"""

import string
from collections.abc import Sequence

import torch
from torch import nn

from pipeline.export.tensorrt.graph import Graph, Handle, Value
from pipeline.export.tensorrt.layers import Layers
from pipeline.models import Placement, build_model, values
from pipeline.models.cache import PromptMemory
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm, WayLinear
from pipeline.models.values import Stream

Ways = tuple[Value, ...]  # one value a way here, or one that all ways share


def write(graph: Graph, layers: Layers, placement: Placement) -> None:
    """Write one rank's model into `graph`: inputs tokens, positions and (not of two chunks) wanted, output logits."""
    model = build_model(layers.config, placement, seed=None, device="meta")
    values.run(model, NetworkWriter(graph, layers), torch.empty(1, 1, dtype=torch.long, device="meta"))


class NetworkWriter:
    """Turns each step of a forward into layers of the current segment."""

    tokens = -1  # a network reads prompts of many lengths
    waits_late = True  # TensorRT orders a network by what each layer needs

    def __init__(self, graph: Graph, layers: Layers) -> None:
        self.graph, self.layers = graph, layers
        self.place, self.segments, self.sums = "layer0", 0, 0
        self.cut = True  # the next part begins a segment
        self.memories: dict[int, tuple[PromptMemory, list[tuple[Value, Value]]]] = {}

    def embed(self) -> Ways:
        self._begin()
        return (self.layers.embed(),)

    def enter(self, layer: int) -> None:
        if layer > 0:
            self._place(f"layer{layer}")

    def part(self, name: str, module: nn.Module, x: "Stream[Ways, Handle]", memory: PromptMemory | None) -> Ways:
        layers, block = self.layers, name.rsplit(".", 1)[0]
        ways = len(next(module.parameters()))  # their axis is the first of every weight
        spread = list(enumerate(_spread(self._read(x), ways)))
        if isinstance(module, WayLayerNorm):
            return tuple(layers.norm(value, name, way) for way, value in spread)
        if isinstance(module, WayLinear):
            return tuple(layers.linear(value, name, way, *module.weight.shape[1:]) for way, value in spread)
        if isinstance(module, FeedForward):
            return tuple(layers.ffn(value, block, way) for way, value in spread)
        assert isinstance(module, Attention)
        earlier = None if memory is None else self.memories.get(id(memory), (memory, None))[1]
        found = [
            layers.attention(value, block, way, None if earlier is None else earlier[way]) for way, value in spread
        ]
        if memory is not None:
            self.memories[id(memory)] = (memory, [kept for _, kept in found])
        self.cut = True
        return tuple(out for out, _ in found)

    def add(self, terms: Sequence[tuple[Ways, float]]) -> Ways:
        ways = max(len(value) for value, _ in terms)
        scaled = [_spread(self._scaled(value, factor), ways) for value, factor in terms]
        return tuple(self.layers.add(*way) for way in zip(*scaled, strict=True))

    def _scaled(self, value: Ways, factor: float) -> Ways:
        return value if factor == 1 else tuple(self.layers.scaled(way, factor) for way in value)

    def sum_of_ways(self, x: Ways) -> Ways:
        return (self.layers.add(*x),)

    def start(self, x: Ways) -> Handle:
        self.sums += 1
        self.cut = True
        return self.graph.start(x[0], f"{self.place}.sum{self.sums}")

    def wait(self, handle: Handle) -> Ways:
        if self.cut and handle.partial.segment == len(self.graph.segments) - 1:
            self._begin()  # a sum started here arrives in the next segment at the earliest
        return (self.graph.wait(handle),)

    def last(self, x: "Stream[Ways, Handle]") -> Ways:
        value = self._read(x) if x.is_pending else x.made()  # cut where it is made: less crosses to the next segment
        return tuple(self.layers.chosen(way) for way in value)

    def leave(self, x: "Stream[Ways, Handle]") -> None:
        if not x.is_pending:
            x.made()  # the last layer's work, not the head's
        self._place("head")

    def split(self, x: Ways) -> list[Ways]:
        halves = [self.layers.halves(value) for value in x]
        return [tuple(pair[half] for pair in halves) for half in range(2)]

    def join(self, chunks: Sequence[Ways]) -> Ways:
        return tuple(self.layers.joined(parts) for parts in zip(*chunks, strict=True))

    def head(self, x: "Stream[Ways, Handle]") -> None:
        self.graph.output(self.layers.head(x.made()[0]), "logits")

    def _read(self, x: "Stream[Ways, Handle]") -> Ways:
        """A stream's values in the segment that reads them: what waits for a sum is computed there, else before."""
        if not x.is_pending:
            x.made()
        if self.cut:
            self._begin()
        return x.made()

    def _place(self, name: str) -> None:
        self.place, self.segments, self.sums, self.cut = name, 0, 0, True

    def _begin(self) -> None:
        letters = string.ascii_lowercase
        self.graph.segment(f"{self.place}.{letters[self.segments] if self.segments < 26 else self.segments}")
        self.segments += 1
        self.cut = False


def _spread(value: Ways, ways: int) -> Ways:
    """A value a way; all ways read the one that they share."""
    return value * ways if len(value) == 1 else value
