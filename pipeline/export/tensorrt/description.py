"""What an engine holds, in words and numbers: layers by kind, collectives, inputs and their profiles."""

from collections import Counter
from typing import Any

from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt.graph import Dim, Segment, dimension_sizes

Ranges = dict[str, tuple[int, int, int]]  # least, usual and greatest size by dimension
USUAL_TOKENS = 128  # the shape TensorRT tunes for: the paper's short prompt


def dimension_ranges(spec: EngineSpec, least_tokens: int) -> Ranges:
    """Least, usual and greatest size of every dimension that varies."""
    longest = spec.max_input_len
    least = dimension_sizes(1, least_tokens, 1)
    usual = dimension_sizes(1, min(USUAL_TOKENS, longest), 1)
    greatest = dimension_sizes(spec.max_batch_size, longest, longest)
    return {name: (least[name], usual[name], greatest[name]) for name in least}


def profile_shapes(segment: Segment, ranges: Ranges) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Least, usual and greatest shape of every input of a segment."""

    def size(dim: Dim, which: int) -> int:
        return ranges[dim][which] if isinstance(dim, str) else dim

    return {
        name: tuple(tuple(size(dim, which) for dim in value.shape) for which in range(3))
        for name, value in segment.inputs.items()
    }


def describe_segment(segment: Segment, ranges: Ranges) -> dict[str, Any]:
    """A network definition as JSON data, counted on the network itself."""
    network = segment.network
    kinds = Counter(network.get_layer(index).type.name.lower() for index in range(network.num_layers))
    return {
        "name": segment.name,
        "layers": network.num_layers,
        "layers_by_kind": dict(sorted(kinds.items())),
        "collectives_inside": kinds["dist_collective"],
        "inputs": {
            name: {"shape": list(segment.inputs[name].shape), "profile": [list(shape) for shape in shapes]}
            for name, shapes in profile_shapes(segment, ranges).items()
        },
        "outputs": {name: {"shape": list(value.shape)} for name, value in segment.outputs.items()},
    }
