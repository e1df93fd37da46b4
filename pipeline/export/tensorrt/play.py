"""How each architecture's layers are wired, with its collectives: the same text for whole and segmented engines.

A layer has an A segment up to the end of attention and a B segment behind it, in every architecture, so that
what a launch costs is the same on all sides.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.export.tensorrt.graph import Graph, Handle, Value
from pipeline.export.tensorrt.layers import Layers


@dataclass(frozen=True)
class State:
    """What a layer hands on: the residual stream of every way here, and sums still on their way."""

    streams: tuple[Value, ...]
    total: Value | None = None  # Kraken: the local sum of the streams
    pending: tuple[Handle, ...] = ()


Wire = Callable[[Graph, Layers, State, int], State]


def write(graph: Graph, layers: Layers) -> None:
    """Write the whole model into `graph`: inputs tokens, positions and wanted, output logits."""
    config = layers.config
    graph.segment("layer0.a")
    state = State((layers.embed(),))
    wire = WIRES[config.architecture]
    for layer in range(config.n_layer):
        if layer > 0:
            graph.segment(f"layer{layer}.a")
        state = wire(graph, layers, state, layer)
    graph.segment("head.a")
    if config.architecture == "kraken":
        parts = [
            layers.linear(layers.chosen(x), "concat.project", way, config.n_embd, config.n_embd)
            for way, x in enumerate(state.streams)
        ]
        partial = graph.start(layers.add(*parts), "concat")  # one row a wanted position, not T
        graph.segment("head.b")
        x = graph.wait(partial)
    else:
        x = layers.chosen(_settled(graph, layers, state))
    graph.output(layers.head(x), "logits")


def _settled(graph: Graph, layers: Layers, state: State) -> Value:
    """The only residual with everything pending added; Desync's pending sum is the residual itself."""
    x = state.streams[0] if state.streams else graph.wait(state.pending[0])
    for handle in state.pending if state.streams else ():
        x = layers.add(x, graph.wait(handle))
    return x


def standard(graph: Graph, layers: Layers, state: State, layer: int) -> State:
    """x + A(LN1 x), then + F(LN2 ·): two blocking sums."""
    name = f"blocks.{layer}"
    x = _settled(graph, layers, state)
    attention = graph.start(layers.attention(layers.norm(x, f"{name}.ln_1"), layer), f"layer{layer}.attention")
    graph.segment(f"layer{layer}.b")
    x = layers.add(x, graph.wait(attention))
    ffn = graph.start(layers.ffn(layers.norm(x, f"{name}.ln_2"), layer), f"layer{layer}.ffn")
    return State((x,), pending=(ffn,))


def parallel(graph: Graph, layers: Layers, state: State, layer: int) -> State:
    """x + A(LN x) + F(LN x): one blocking sum."""
    x = _settled(graph, layers, state)
    normed = layers.norm(x, f"blocks.{layer}.ln_1")
    attended = layers.attention(normed, layer)
    graph.segment(f"layer{layer}.b")
    both = graph.start(layers.add(attended, layers.ffn(normed, layer)), f"layer{layer}.both")
    return State((x,), pending=(both,))


def kraken(graph: Graph, layers: Layers, state: State, layer: int) -> State:
    """The sum of the ways starts before attention and is waited for behind it; it enters LN2 and the FFN only."""
    name, ways = f"blocks.{layer}", range(layers.shape.n_ways)
    streams = state.streams if layer > 0 else state.streams * layers.shape.n_ways
    summed = graph.start(state.total, f"layer{layer}.ways") if state.total is not None else None
    attended = [layers.attention(layers.norm(streams[w], f"{name}.ln_1", w), layer, w) for w in ways]
    residuals = [layers.add(streams[w], attended[w]) for w in ways]  # a
    graph.segment(f"layer{layer}.b")
    if summed is None:
        mixed = residuals
    else:
        others = graph.wait(summed)
        mixed = [layers.add(attended[w], others) for w in ways]  # u = a + the other ways = MHA + sum
    out = tuple(layers.add(residuals[w], layers.ffn(layers.norm(mixed[w], f"{name}.ln_2", w), layer, w)) for w in ways)
    last = layer == layers.config.n_layer - 1
    return State(out, total=None if last else layers.add(*out))


def ladder(graph: Graph, layers: Layers, state: State, layer: int) -> State:
    """Each module reads the residual without the module just before it: every sum has a module to hide under."""
    name = f"blocks.{layer}"
    x = state.streams[0]
    if state.pending:
        x = layers.add(x, graph.wait(state.pending[0]))
    attention = graph.start(layers.attention(layers.norm(x, f"{name}.ln_1"), layer), f"layer{layer}.attention")
    graph.segment(f"layer{layer}.b")
    if state.pending:
        x = layers.add(x, graph.wait(state.pending[1]))
    ffn = graph.start(layers.ffn(layers.norm(x, f"{name}.ln_2"), layer), f"layer{layer}.ffn")
    return replace(state, streams=(x,), pending=(attention, ffn))


def desync(graph: Graph, layers: Layers, state: State, layer: int) -> State:
    """The attention's sum is dropped; x = sum over ways of F(LN2 y) + y / N."""
    name, ways = f"blocks.{layer}", range(layers.shape.n_ways)
    x = _settled(graph, layers, state)
    streams = [layers.add(x, layers.attention(layers.norm(x, f"{name}.ln_1", w), layer, w)) for w in ways]  # y
    graph.segment(f"layer{layer}.b")
    parts = [
        part
        for w in ways
        for part in (
            layers.ffn(layers.norm(streams[w], f"{name}.ln_2", w), layer, w),
            layers.scaled(streams[w], 1 / layers.config.n_ways),
        )
    ]
    return State((), pending=(graph.start(layers.add(*parts), f"layer{layer}.ffn"),))


WIRES: dict[str, Wire] = {
    "standard": standard,
    "parallel": parallel,
    "kraken": kraken,
    "ladder": ladder,
    "desync": desync,
}
