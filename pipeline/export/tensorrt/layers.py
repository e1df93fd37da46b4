"""The layers of a Transformer in TensorRT's operators. Shapes are (B, T, ·): a rank's ways are written one by one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config.model import ModelConfig
from pipeline.export.tensorrt.graph import FIRST_TOKENS, OUTPUTS, SECOND_TOKENS, Graph, Value
from pipeline.export.weights import RankWeights
from pipeline.models import LocalShape
from pipeline.models.placement import vocabulary_share

FEATURES = 1 << 2  # the axis that LayerNorm averages over, as a bit mask


class Layers:
    """Adds layers to a graph's current segment, weights by the pipeline's names."""

    def __init__(
        self, graph: Graph, config: ModelConfig, shape: LocalShape, head_dim: int, weights: RankWeights
    ) -> None:
        self.graph, self.config, self.shape, self.head_dim = graph, config, shape, head_dim
        self.weights, self.names = weights, set(weights.names())

    def parameter(self, name: str, way: int | None, shape: tuple[int, ...]) -> Any:
        """A parameter, of one way where it has that axis, as a constant of `shape`."""
        key = name if way is None else f"{name}[{way}]"
        if key in self.graph.current.constants:
            return self.graph.current.constants[key]
        tensor = self.weights.read(name)
        return self._constant(key, (tensor if way is None else tensor[way]).reshape(shape))

    def _constant(self, name: str, tensor: Tensor) -> Any:
        """A constant, made once a segment."""
        constants, trt = self.graph.current.constants, self.graph.trt
        if name not in constants:
            tensor = tensor.contiguous()
            self.graph.kept.append(tensor)
            kinds = {torch.float32: trt.float32, torch.float16: trt.float16, torch.bfloat16: trt.bfloat16}
            kinds |= {torch.int32: trt.int32, torch.int64: trt.int64}
            numbers = trt.Weights(kinds[tensor.dtype], tensor.data_ptr(), tensor.numel())
            layer = self.graph.network.add_constant(tuple(tensor.shape), numbers)
            layer.name = name
            constants[name] = layer.get_output(0)
        return constants[name]

    def _elementwise(self, a: Any, b: Any, kind: str) -> Any:
        operation = getattr(self.graph.trt.ElementWiseOperation, kind)
        return self.graph.network.add_elementwise(a, b, operation).get_output(0)

    def add(self, *values: Value) -> Value:  # equal shapes -> the same
        """The sum of values, left to right; a single value is itself."""
        if len(values) == 1:
            return values[0]
        tensor = self.graph.use(values[0])
        for value in values[1:]:
            tensor = self._elementwise(tensor, self.graph.use(value), "SUM")
        return self.graph.value(tensor, values[0].shape)

    def scaled(self, x: Value, factor: float) -> Value:
        return self.graph.value(self._scaled(self.graph.use(x), factor, 3), x.shape)

    def _scaled(self, tensor: Any, factor: float, rank: int) -> Any:
        constant = torch.full((1,) * rank, factor, dtype=torch.float32).to(self.graph.dtype)
        return self._elementwise(tensor, self._constant(f"factor {factor!r} {rank}", constant), "PROD")

    def embed(self) -> Value:  # tokens (B, T), positions (T,) -> (B, T, d)
        """Token plus position embedding, where there is one."""
        graph, config = self.graph, self.config
        tokens = graph.input("tokens", ("batch", "tokens"), graph.trt.int32)
        wte = self.parameter("wte.weight", None, (config.vocab_size, config.n_embd))
        shape = ("batch", "tokens", config.n_embd)
        if config.position == "none":
            return graph.value(graph.network.add_gather(wte, tokens.tensor, 0).get_output(0), shape)
        positions = graph.input("positions", ("tokens",), graph.trt.int32)
        wpe = self.parameter("wpe.weight", None, (1, config.block_size, config.n_embd))
        words = graph.network.add_gather(wte, tokens.tensor, 0).get_output(0)  # (B, T, d)
        places = graph.network.add_gather(wpe, positions.tensor, 1).get_output(0)  # (1, T, d)
        return graph.value(self._elementwise(words, places, "SUM"), shape)

    def norm(self, x: Value, name: str, way: int = 0) -> Value:  # (B, T, d) -> (B, T, d)
        d = x.shape[-1]
        assert isinstance(d, int)  # the width never varies
        scale = self.parameter(f"{name}.weight", way, (1, 1, d))
        if f"{name}.bias" in self.names:
            bias = self.parameter(f"{name}.bias", way, (1, 1, d))
        else:
            bias = self._constant(f"no bias {d}", torch.zeros(1, 1, d, dtype=self.graph.dtype))
        layer = self.graph.network.add_normalization_v2(self.graph.use(x), scale, bias, FEATURES)
        layer.epsilon = self.config.layer_norm_eps
        layer.name = f"{name}[{way}]"
        return self.graph.value(layer.get_output(0), x.shape)

    def linear(self, x: Value, name: str, way: int, n_in: int, n_out: int) -> Value:  # (B, T, in) -> (B, T, out)
        weight = self.parameter(f"{name}.weight", way, (1, n_in, n_out))
        none = self.graph.trt.MatrixOperation.NONE
        layer = self.graph.network.add_matrix_multiply(self.graph.use(x), none, weight, none)
        layer.name = f"{name}[{way}] product"
        out = layer.get_output(0)
        if f"{name}.bias" in self.names:
            out = self._elementwise(out, self.parameter(f"{name}.bias", way, (1, 1, n_out)), "SUM")
        return self.graph.value(out, (*x.shape[:2], n_out))

    def attention(  # (B, T, d) -> (B, T, d)
        self, x: Value, block: str, way: int = 0, earlier: tuple[Value, Value] | None = None
    ) -> tuple[Value, tuple[Value, Value]]:
        """Causal multi-head attention of one way, and its keys and values, each (B, h, T, hp).

        Heads are padded, scores scaled as for the true head size. With the keys and values of an `earlier` chunk, x
        is what follows it.
        """
        heads, size, d = self.shape.n_head, self.head_dim, self.config.n_embd
        trt, network = self.graph.trt, self.graph.network
        qkv = self.linear(x, f"{block}.attn.qkv", way, d, 3 * heads * size)
        q, k, v = (self._head(qkv, index) for index in range(3))  # each (B, h, T, hp)
        q = self._scaled(q, 1 / math.sqrt(self.shape.head_dim), 4)
        kept = tuple(self.graph.value(tensor, (x.shape[0], heads, x.shape[1], size)) for tensor in (k, v))
        mask = trt.CausalMaskKind.UPPER_LEFT
        if earlier is not None:
            k, v = (
                self._concatenated([self.graph.use(before), now], 2)
                for before, now in zip(earlier, (k, v), strict=True)
            )
            mask = trt.CausalMaskKind.LOWER_RIGHT
        attention = network.add_attention_v2(q, k, v, trt.AttentionNormalizationOp.SOFTMAX, mask)
        attention.decomposable = True  # where no fused kernel fits, primitive operators do
        attention.name = f"{block}.attn[{way}]{'' if earlier is None else ' second'}"
        merge = network.add_shuffle(attention.get_output(0))  # (B, h, T, hp) -> (B, T, h·hp)
        merge.first_transpose = trt.Permutation([0, 2, 1, 3])
        merge.reshape_dims = (0, 0, heads * size)
        y = self.graph.value(merge.get_output(0), (*x.shape[:2], heads * size))
        return self.linear(y, f"{block}.attn.out", way, heads * size, d), (kept[0], kept[1])

    def _head(self, qkv: Value, index: int) -> Any:  # (B, T, 3·h·hp) -> (B, h, T, hp)
        """q, k or v, cut out along the last axis and split into heads."""
        heads, size = self.shape.n_head, self.head_dim
        network, trt = self.graph.network, self.graph.trt
        sizes = self._sizes(qkv, heads * size)  # before the slice: layers stand in the order they are computed
        cut = network.add_slice(self.graph.use(qkv), (0, 0, index * heads * size), (0, 0, 0), (1, 1, 1))
        cut.set_input(2, sizes)
        split = network.add_shuffle(cut.get_output(0))
        split.reshape_dims = (0, 0, heads, size)
        split.second_transpose = trt.Permutation([0, 2, 1, 3])
        return split.get_output(0)

    def _sizes(self, x: Value, last: int) -> Any:
        """[B, T, last] as a shape tensor, made once a segment and kind of T."""
        constants = self.graph.current.constants
        key = f"sizes {x.shape[1]} {last}"
        if key not in constants:
            shape = self.graph.network.add_shape(self.graph.use(x)).get_output(0)
            keep = self._constant("keep two sizes", torch.from_numpy(np.array([1, 1, 0], dtype=np.int64)))
            add = self._constant(f"last size {last}", torch.tensor([0, 0, last], dtype=torch.int64))
            constants[key] = self._elementwise(self._elementwise(shape, keep, "PROD"), add, "SUM")
        return constants[key]

    def ffn(self, x: Value, block: str, way: int = 0) -> Value:  # (B, T, d) -> (B, T, d)
        d, hidden = self.config.n_embd, self.shape.ffn_dim
        up = self.linear(x, f"{block}.mlp.up", way, d, hidden)
        gelu = self.graph.network.add_activation(self.graph.use(up), self.graph.trt.ActivationType.GELU_TANH)
        bent = self.graph.value(gelu.get_output(0), up.shape)
        return self.linear(bent, f"{block}.mlp.down", way, hidden, d)

    def halves(self, x: Value) -> tuple[Value, Value]:  # (B, T, d) -> (B, ceil(T / 2), d), (B, floor(T / 2), d)
        """A prompt's two chunks."""
        graph, network = self.graph, self.graph.network
        tensor = graph.use(x)
        shape = network.add_shape(tensor).get_output(0)
        one_more, by_two, tokens_only = (
            self._constant(f"sizes {numbers}", torch.tensor(numbers, dtype=torch.int64))
            for numbers in ([0, 1, 0], [1, 2, 1], [0, 1, 0])
        )
        first = self._elementwise(self._elementwise(shape, one_more, "SUM"), by_two, "FLOOR_DIV")
        begin = self._elementwise(first, tokens_only, "PROD")  # [0, ceil(T / 2), 0]
        second = self._elementwise(shape, begin, "SUB")
        cuts = []
        for start, sizes, name in ((None, first, FIRST_TOKENS), (begin, second, SECOND_TOKENS)):
            cut = network.add_slice(tensor, (0, 0, 0), (0, 0, 0), (1, 1, 1))
            if start is not None:
                cut.set_input(1, start)
            cut.set_input(2, sizes)
            cuts.append(graph.value(cut.get_output(0), (x.shape[0], name, *x.shape[2:])))
        graph.least_tokens = 2
        return cuts[0], cuts[1]

    def joined(self, chunks: Sequence[Value]) -> Value:  # each (B, t, d) -> (B, T, d)
        first = chunks[0]
        whole = self._concatenated([self.graph.use(chunk) for chunk in chunks], 1)
        return self.graph.value(whole, (first.shape[0], "tokens", *first.shape[2:]))

    def _concatenated(self, tensors: Sequence[Any], axis: int) -> Any:
        layer = self.graph.network.add_concatenation(list(tensors))
        layer.axis = axis
        return layer.get_output(0)

    def chosen(self, x: Value) -> Value:  # (B, T, d) -> (B, n, d)
        """The positions whose logits are wanted: the last one for a first token. Of these alone, themselves.

        Of a prompt's second chunk its last one, whatever is wanted.
        """
        if x.shape[1] == OUTPUTS:
            return x
        if x.shape[1] == SECOND_TOKENS:
            return self._end(x)
        wanted = self.graph.input("wanted", (OUTPUTS,), self.graph.trt.int32)
        layer = self.graph.network.add_gather(self.graph.use(x), wanted.tensor, 1)
        return self.graph.value(layer.get_output(0), (x.shape[0], OUTPUTS, *x.shape[2:]))

    def _end(self, x: Value) -> Value:  # (B, t, d) -> (B, 1, d)
        network = self.graph.network
        tensor = self.graph.use(x)
        shape = network.add_shape(tensor).get_output(0)
        tokens_only, others = (
            self._constant(f"sizes {numbers}", torch.tensor(numbers, dtype=torch.int64))
            for numbers in ([0, 1, 0], [1, 0, 1])
        )
        begin = self._elementwise(self._elementwise(shape, tokens_only, "PROD"), tokens_only, "SUB")  # [0, t - 1, 0]
        sizes = self._elementwise(self._elementwise(shape, others, "PROD"), tokens_only, "SUM")  # [B, 1, d]
        cut = network.add_slice(tensor, (0, 0, 0), (0, 0, 0), (1, 1, 1))
        cut.set_input(1, begin)
        cut.set_input(2, sizes)
        return self.graph.value(cut.get_output(0), (x.shape[0], OUTPUTS, *x.shape[2:]))

    def head(self, x: Value) -> Value:  # (B, n, d) -> (B, n, V / N)
        """The product with this rank's rows of the embedding, or of the head's own weight."""
        config, network = self.config, self.graph.network
        share = vocabulary_share(config, self.weights.placement)
        weight = self.parameter(
            "wte.weight" if config.tie_embeddings else "lm_head.weight", None, (config.vocab_size, config.n_embd)
        )
        table = network.add_shuffle(weight)
        table.reshape_dims = (1, config.vocab_size, config.n_embd)
        if len(share) < config.vocab_size:
            table = network.add_slice(
                table.get_output(0), (0, share.start, 0), (1, len(share), config.n_embd), (1, 1, 1)
            )
        operation = self.graph.trt.MatrixOperation
        product = network.add_matrix_multiply(
            self.graph.use(x), operation.NONE, table.get_output(0), operation.TRANSPOSE
        )
        product.name = "head"
        return self.graph.value(product.get_output(0), (*x.shape[:2], len(share)))
