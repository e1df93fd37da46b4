"""Evaluates TensorRT network definitions with torch: all ranks in lock step, no engine and no GPU.

Every layer is read back from the network itself (weights, axes, permutations), never from the code that wrote it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.export.tensorrt.program import play

Values = dict[str, Tensor]


def interpret(trt: Any, graphs: list[Any], inputs: Values) -> list[Values]:
    """Outputs of every rank's program, played in lock step."""
    program = graphs[0].program
    assert all(graph.program == program for graph in graphs), "ranks disagree on the program"
    ranks = Ranks(trt, graphs, inputs)
    play(program, ranks)
    return ranks.held


class Ranks:
    """All ranks' tensors. A sum is readable only once waited for, a tensor only once made."""

    def __init__(self, trt: Any, graphs: list[Any], inputs: Values) -> None:
        self.trt, self.graphs = trt, graphs
        self.held = [dict(inputs) for _ in graphs]
        self.under_way: Values = {}

    def run(self, segment: int) -> None:
        networks = [graph.segments[segment].network for graph in self.graphs]
        for values, new in zip(self.held, lock_step(self.trt, networks, self.held), strict=True):
            values.update(new)

    def start(self, source: str, result: str) -> None:
        self.under_way[result] = total([values[source] for values in self.held])

    def wait(self, result: str) -> None:
        for values in self.held:
            values[result] = self.under_way[result].clone()


def lock_step(trt: Any, networks: list[Any], inputs: list[Values]) -> list[Values]:
    """Outputs of one network a rank, layer by layer on all ranks; collectives sum over them."""
    count = networks[0].num_layers
    assert all(network.num_layers == count for network in networks)
    values: list[Values] = []
    for network, given in zip(networks, inputs, strict=True):
        names = [network.get_input(index).name for index in range(network.num_inputs)]
        values.append({name: given[name] for name in names})
    for index in range(count):
        layers = [network.get_layer(index) for network in networks]
        kind = layers[0].type
        assert all(layer.type == kind and layer.name == layers[0].name for layer in layers)
        if kind == trt.LayerType.DIST_COLLECTIVE:
            assert all(layer.num_ranks == len(networks) for layer in layers)
            summed = total([held[layer.get_input(0).name] for held, layer in zip(values, layers, strict=True)])
            results = [summed.clone() for _ in layers]
        else:
            results = [evaluate(trt, layer, held) for held, layer in zip(values, layers, strict=True)]
        for held, layer, result in zip(values, layers, results, strict=True):
            held[layer.get_output(0).name] = result
    outputs = []
    for network, held in zip(networks, values, strict=True):
        names = [network.get_output(index).name for index in range(network.num_outputs)]
        outputs.append({name: held[name] for name in names})
    return outputs


def total(parts: list[Tensor]) -> Tensor:
    """What an all-reduce gives, in the tensors' own type."""
    out = parts[0].clone()
    for part in parts[1:]:
        out += part
    return out


def evaluate(trt: Any, layer: Any, held: Values) -> Tensor:
    """One layer's output."""
    kind = layer.type
    tensors = [layer.get_input(index) for index in range(layer.num_inputs)]
    arguments = [None if tensor is None else held[tensor.name] for tensor in tensors]
    return KINDS[kind.name](trt, layer, arguments)


def constant(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IConstantLayer
    return torch.from_numpy(np.array(layer.weights)).reshape(tuple(layer.shape))


def gather(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IGatherLayer
    data, indices = arguments
    picked = data.index_select(layer.axis, indices.flatten().long())
    return picked.unflatten(layer.axis, tuple(indices.shape))


def elementwise(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IElementWiseLayer
    return {"SUM": torch.add, "PROD": torch.mul, "SUB": torch.sub, "FLOOR_DIV": torch.floor_divide}[layer.op.name](
        *arguments
    )


def normalization(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.INormalizationLayer
    x, scale, bias = arguments
    assert layer.is_v2
    axes = [axis for axis in range(x.dim()) if layer.axes >> axis & 1]
    wide = x.float()
    mean = wide.mean(axes, keepdim=True)
    variance = wide.var(axes, correction=0, keepdim=True)
    normed = (wide - mean) / torch.sqrt(variance + layer.epsilon)
    return (normed * scale.float() + bias.float()).to(x.dtype)


def concatenation(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IConcatenationLayer
    return torch.cat(arguments, dim=layer.axis)


def matrix_multiply(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IMatrixMultiplyLayer
    sides = []
    for operand, operation in zip(arguments, (layer.op0, layer.op1), strict=True):
        sides.append(operand.mT if operation == trt.MatrixOperation.TRANSPOSE else operand)
    return torch.matmul(*sides)


def slice_(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.ISliceLayer
    x = arguments[0]
    assert all(step == 1 for step in layer.stride)
    sizes = arguments[2].tolist() if len(arguments) > 2 else list(layer.shape)
    starts = list(layer.start) if len(arguments) < 2 or arguments[1] is None else arguments[1].tolist()
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        x = x.narrow(axis, start, size)
    return x


def shape(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    return torch.tensor(arguments[0].shape, dtype=torch.int64)


def shuffle(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IShuffleLayer
    x = arguments[0]
    rank = x.dim()
    x = x.permute([layer.first_transpose[axis] for axis in range(rank)])
    wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(layer.reshape_dims)]
    x = x.reshape(wanted) if len(wanted) else x
    return x.permute([layer.second_transpose[axis] for axis in range(x.dim())])


def activation(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    layer.__class__ = trt.IActivationLayer
    assert layer.__class__ is trt.IActivationLayer
    x = arguments[0].float()
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return (0.5 * x * (1 + torch.tanh(inner))).to(arguments[0].dtype)


def attention_input(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    """Softmax attention without any scale of its own, rows see themselves and what is before them."""
    layer.__class__ = trt.IAttentionInputLayer
    attention = layer.attention
    assert attention.norm_op == trt.AttentionNormalizationOp.SOFTMAX
    q, k, v = arguments
    scores = (q @ k.mT).float()
    rows, columns = scores.shape[-2:]
    lower_right = attention.causal_kind == trt.CausalMaskKind.LOWER_RIGHT
    assert lower_right or attention.causal_kind == trt.CausalMaskKind.UPPER_LEFT
    future = torch.ones(rows, columns, dtype=torch.bool).triu(1 + (columns - rows if lower_right else 0))
    weights = F.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
    return weights.to(v.dtype) @ v


def attention_output(trt: Any, layer: Any, arguments: list[Any]) -> Tensor:
    return arguments[0]


KINDS: dict[str, Callable[[Any, Any, list[Any]], Tensor]] = {
    "CONCATENATION": concatenation,
    "CONSTANT": constant,
    "GATHER": gather,
    "ELEMENTWISE": elementwise,
    "NORMALIZATION": normalization,
    "MATRIX_MULTIPLY": matrix_multiply,
    "SLICE": slice_,
    "SHAPE": shape,
    "SHUFFLE": shuffle,
    "ACTIVATION": activation,
    "ATTENTION_INPUT": attention_input,
    "ATTENTION_OUTPUT": attention_output,
}


def reachable(network: Any, start: str) -> set[str]:
    """Names of all layers that depend on the layer `start`, over any number of steps."""
    readers: dict[str, list[int]] = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for number, layer in enumerate(layers):
        for index in range(layer.num_inputs):
            tensor = layer.get_input(index)
            if tensor is not None:
                readers.setdefault(tensor.name, []).append(number)
    found: set[int] = set()
    todo = [number for number, layer in enumerate(layers) if layer.name == start]
    assert len(todo) == 1, f"{start}: {len(todo)} layers of that name"
    while todo:
        layer = layers[todo.pop()]
        for output in range(layer.num_outputs):
            for number in readers.get(layer.get_output(output).name, []):
                if number not in found:
                    found.add(number)
                    todo.append(number)
    return {layers[number].name for number in found}
