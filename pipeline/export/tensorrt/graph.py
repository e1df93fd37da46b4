"""A network being written: one definition, or one a segment with the tensors between them and the collectives.

An architecture is written once against this class. In whole mode `start` adds a collective layer and `segment`
does nothing; in segmented mode `segment` begins a new definition, values cross as outputs and inputs, and
`start` and `wait` become steps of the program that the runtime plays.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.export.heads import torch_dtype
from pipeline.export.tensorrt.program import Program, Run, Start, Wait

Dim = int | str  # a size, or the name of one that varies: batch, tokens (and its two halves), outputs
FIRST_TOKENS, SECOND_TOKENS, OUTPUTS = "first_tokens", "second_tokens", "outputs"


def dimension_sizes(batch: int, tokens: int, outputs: int) -> dict[str, int]:
    """Every dimension that varies, for one prompt shape."""
    halves = {FIRST_TOKENS: -(-tokens // 2), SECOND_TOKENS: tokens // 2}
    return {"batch": batch, "tokens": tokens, OUTPUTS: outputs, **halves}


@dataclass(frozen=True)
class Value:
    """A tensor of the network and the segment it was made in."""

    name: str
    tensor: Any  # ITensor
    shape: tuple[Dim, ...]
    segment: int


@dataclass(frozen=True)
class Handle:
    """A sum on its way, or already there: on one rank, and in whole mode."""

    label: str
    partial: Value
    result: Value | None


@dataclass
class Segment:
    """One network definition and what crosses its border."""

    name: str
    network: Any
    inputs: dict[str, Value] = field(default_factory=dict)
    outputs: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


class Graph:
    """Segments of one rank, in order, and the program over them."""

    def __init__(self, trt: Any, builder: Any, tp_size: int, mode: str, dtype: str) -> None:
        self.trt, self.builder = trt, builder
        self.tp_size, self.segmented = tp_size, mode == "segmented"
        self.dtype = torch_dtype(dtype)
        self.segments: list[Segment] = []
        self.program = Program()
        self.collectives = 0
        self.least_tokens = 1  # shortest prompt that the network can read
        self.kept: list[Tensor] = []  # TensorRT reads weights when it builds: their memory must live until then
        self._counter = 0

    @property
    def current(self) -> Segment:
        return self.segments[-1]

    @property
    def network(self) -> Any:
        return self.current.network

    def segment(self, name: str) -> None:
        """Begin a segment; in whole mode only the first call does anything."""
        if self.segments and not self.segmented:
            return
        flags = 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self.builder.create_network(flags)
        network.name = name if self.segmented else "whole"
        self.segments.append(Segment(network.name, network))
        self.program.steps.append(Run(len(self.segments) - 1))

    def input(self, name: str, shape: tuple[Dim, ...], dtype: Any) -> Value:
        """An input of the current segment from outside, the same one wherever it is asked for again."""
        if name not in self.current.inputs:
            tensor = self.network.add_input(name, dtype, tuple(-1 if isinstance(d, str) else d for d in shape))
            for axis, size in enumerate(shape):
                if isinstance(size, str):
                    tensor.set_dimension_name(axis, size)
            self.current.inputs[name] = Value(name, tensor, shape, len(self.segments) - 1)
        return self.current.inputs[name]

    def value(self, tensor: Any, shape: tuple[Dim, ...], name: str = "") -> Value:
        """A layer's output as a value of the current segment."""
        self._counter += 1
        return Value(name or f"v{self._counter}", tensor, shape, len(self.segments) - 1)

    def use(self, value: Value) -> Any:
        """The tensor of a value in the current segment: brought in where another one made it."""
        if value.segment == len(self.segments) - 1:
            return value.tensor
        self._mark(value)
        return self.input(value.name, value.shape, value.tensor.dtype).tensor

    def output(self, value: Value, name: str) -> None:
        """Mark a result of the whole program."""
        self._mark(Value(name, value.tensor, value.shape, value.segment))

    def start(self, value: Value, label: str) -> Handle:
        """Begin the sum of `value` over the ranks."""
        if self.tp_size == 1:
            return Handle(label, value, value)
        self.collectives += 1
        if not self.segmented:
            trt = self.trt
            layer = self.network.add_dist_collective(
                self.use(value), trt.CollectiveOperation.ALL_REDUCE, trt.ReduceOperation.SUM, -1, None
            )
            layer.name = f"allreduce.{label}"
            layer.num_ranks = self.tp_size
            return Handle(label, value, self.value(layer.get_output(0), value.shape, f"{label}.sum"))
        self._mark(value)
        self.program.start(Start(value.name, f"{label}.sum"), made_now=value.segment == len(self.segments) - 1)
        return Handle(label, value, None)

    def wait(self, handle: Handle) -> Value:
        """The sum; in segmented mode it comes in from outside, so `segment` must stand between start and wait."""
        if handle.result is not None:
            return handle.result
        name = f"{handle.label}.sum"
        self.program.wait(Wait(name))
        return self.input(name, handle.partial.shape, handle.partial.tensor.dtype)

    def _mark(self, value: Value) -> None:
        origin = self.segments[value.segment]
        if value.name not in origin.outputs:
            value.tensor.name = value.name
            origin.network.mark_output(value.tensor)
            origin.outputs[value.name] = value
