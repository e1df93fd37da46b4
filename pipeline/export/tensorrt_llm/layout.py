"""TensorRT-LLM's checkpoint layout: how a rank's parameters are called, turned and split there, and back.

Linear weights are (out, in). A model with ways has `layers.I.ways.W.` where TensorRT-LLM's own have `layers.I.`;
`concat.weight` is this rank's columns of W_concat, (d, W·d), as a row-parallel layer wants them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.export.spec import EngineSpec
from pipeline.export.weights import WeightSource
from pipeline.models import local_shape
from pipeline.models.placement import has_ways
from pipeline.models.shard import ROW_PARALLEL_BIASES

PARTS = {
    "ln_1": "input_layernorm",
    "attn.qkv": "attention.qkv",
    "attn.out": "attention.dense",
    "ln_2": "post_layernorm",
    "mlp.up": "mlp.fc",
    "mlp.down": "mlp.proj",
}
BIASES_AFTER_THE_SUM = ("standard",)  # what TensorRT-LLM's own GPT does
EMBEDDING = "transformer.vocab_embedding.weight"
HEAD = "lm_head.weight"
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One tensor of a rank's file: the pipeline's parameter it comes from, and how."""

    shape: Shape
    source: str | None  # None: zeros, where TensorRT-LLM has a bias and we have none
    way: int = 0


def entries(spec: EngineSpec, rank: int, names: Iterable[str]) -> dict[str, Entry]:
    """Every tensor of a rank's file, in order; raises ConfigError for an architecture with modules of its own."""
    model, known = spec.model, set(names)
    shape = local_shape(model, spec.placement(rank))
    d, heads, hidden = model.n_embd, shape.n_head * spec.head_dim, shape.ffn_dim
    found = {
        EMBEDDING: Entry((model.vocab_size, d), "wte.weight"),
        "transformer.position_embedding.weight": Entry((model.block_size, d), "wpe.weight"),
    }
    sizes = {"attn.qkv": (3 * heads, d), "attn.out": (d, heads), "mlp.up": (hidden, d), "mlp.down": (d, hidden)}

    def norm(theirs: str, ours: str, way: int = 0) -> None:
        bias = f"{ours}.bias"
        found[f"{theirs}.weight"] = Entry((d,), f"{ours}.weight", way)
        found[f"{theirs}.bias"] = Entry((d,), bias if bias in known else None, way)

    for layer in range(model.n_layer):
        for way in range(shape.n_ways):
            prefix = f"transformer.layers.{layer}" + (f".ways.{way}" if has_ways(model) else "")
            for ours, theirs in PARTS.items():
                name = f"blocks.{layer}.{ours}"
                if f"{name}.weight" not in known:
                    continue
                if ours.startswith("ln_"):
                    norm(f"{prefix}.{theirs}", name, way)
                    continue
                found[f"{prefix}.{theirs}.weight"] = Entry(sizes[ours], f"{name}.weight", way)
                if f"{name}.bias" in known:
                    found[f"{prefix}.{theirs}.bias"] = Entry(sizes[ours][:1], f"{name}.bias", way)
    if "concat.project.weight" in known:
        found["transformer.concat.weight"] = Entry((d, shape.n_ways * d), "concat.project.weight")
    norm("transformer.ln_f", "ln_f")
    found[HEAD] = Entry(
        (math.ceil(model.vocab_size / spec.tp_size), d), "wte.weight"
    )  # column-parallel, in equal parts
    left_out = sorted(known - {entry.source for entry in found.values()})
    if left_out:
        raise ConfigError(
            f"model.architecture={model.architecture}: TensorRT-LLM's layout has no place for "
            f"{', '.join(left_out[:4])}; engine=tensorrt needs none"
        )
    return found


class RankTensors:
    """A rank's tensors in TensorRT-LLM's layout, produced a block at a time."""

    def __init__(self, spec: EngineSpec, source: WeightSource, rank: int, dtype: torch.dtype) -> None:
        self.spec, self.rank, self.dtype = spec, rank, dtype
        self.weights = source.rank(spec.placement(rank), spec.head_dim, dtype)
        # rank 0 holds row-parallel biases, the others zeros; TensorRT-LLM adds them after the sum, on every rank
        # (of the parallel model too, whose one sum comes behind both branches, so there rank 0 adds them)
        needs_biases = rank > 0 and spec.model.bias and spec.model.architecture in BIASES_AFTER_THE_SUM
        self.biases = source.rank(spec.placement(0), spec.head_dim, dtype) if needs_biases else self.weights
        self.entries = entries(spec, rank, self.weights.names())

    @property
    def shapes(self) -> dict[str, Shape]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The tensor's rows in order."""
        entry = self.entries[name]
        if entry.source is None:
            yield torch.zeros(entry.shape, dtype=self.dtype)
        elif name == HEAD:
            yield from self._head(entry.shape[0])
        elif entry.source in ("wte.weight", "wpe.weight"):
            yield from self.weights.blocks(entry.source)
        elif entry.source == "concat.project.weight":
            yield self.weights.read(entry.source).flatten(0, 1).T  # (W, d, d) -> (d, W·d)
        else:
            biases = entry.source.endswith(ROW_PARALLEL_BIASES)
            tensor = (self.biases if biases else self.weights).read(entry.source)[entry.way]
            yield tensor.T if tensor.dim() == 2 else tensor

    def _head(self, rows: int) -> Iterator[Tensor]:
        """This rank's rows of the tied embedding; rows past the vocabulary are zero."""
        begin, seen = self.rank * rows, 0
        for block in self.weights.blocks("wte.weight"):
            first, last = max(begin, seen), min(begin + rows, seen + len(block))
            if first < last:
                yield block[first - seen : last - seen]
            seen += len(block)
        missing = begin + rows - max(begin, seen)
        if missing > 0:
            yield torch.zeros(missing, self.spec.model.n_embd, dtype=self.dtype)
