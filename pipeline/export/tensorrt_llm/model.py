"""Kraken and parallel attention+FFN for TensorRT-LLM 0.12 to 1.2.1, as an out-of-tree model file.

    trtllm-build --model_cls_file model.py --model_cls_name KrakenForCausalLM …

The only file that imports tensorrt_llm; trtllm-build loads it by its path, so it imports nothing of the pipeline.
Written against the sources of those releases and unrun: no wheel of them installs where this project is tested.
Weights are those of engine=checkpoint, config.json its config.
"""

import ctypes
import os
from typing import Any

import numpy as np
import tensorrt as trt
import tensorrt_llm
from tensorrt_llm._utils import pad_vocab_size
from tensorrt_llm.functional import Tensor, _create_tensor, allreduce, default_trtnet
from tensorrt_llm.layers import MLP, Attention, AttentionMaskType, ColumnLinear, Embedding, LayerNorm, RowLinear
from tensorrt_llm.models.modeling_utils import DecoderLayerList, DecoderModelForCausalLM
from tensorrt_llm.module import Module, ModuleList

OVERLAP_PLUGIN = "KRAKEN_OVERLAP_PLUGIN"  # path of the built plugin; without it the sum blocks


class Start:
    """The two halves of an all-reduce that runs on a stream of its own while attention computes."""

    def __init__(self, library: str) -> None:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)  # registers the plugin creators

    def _layer(self, creator: str, inputs: list[Any], layer: int) -> Any:
        found = trt.get_plugin_registry().get_creator(creator, "1", "kraken")
        value = np.array([layer], dtype=np.int32)  # the field points at it until the plugin is made
        number = trt.PluginField("layer", value, trt.PluginFieldType.INT32)
        plugin = found.create_plugin(creator, trt.PluginFieldCollection([number]), trt.TensorRTPhase.BUILD)
        return default_trtnet().add_plugin_v3([one.trt_tensor for one in inputs], [], plugin)

    def start(self, x: Any, layer: int) -> tuple[Any, Any]:
        """x again, for whatever must be launched behind the start, and the sum on its way."""
        made = self._layer("KrakenSumStart", [x], layer)
        return _create_tensor(made.get_output(0), made), _create_tensor(made.get_output(1), made)

    def wait(self, under_way: Any, behind: Any, layer: int) -> Any:
        """The sum, held until `behind` has been launched: the output of the attention's projection."""
        made = self._layer("KrakenSumWait", [under_way, behind], layer)
        return _create_tensor(made.get_output(0), made)


class Way(Module):  # type: ignore[misc]  # tensorrt_llm is untyped here
    """One way: a small block that no matrix of is sharded, so its layers know of no group."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        heads = config.num_attention_heads // config.n_ways
        self.input_layernorm = _norm(config)
        self.attention = _attention(config, layer_idx, heads, 1)
        self.post_layernorm = _norm(config)
        self.mlp = _mlp(config, 1)


class KrakenDecoderLayer(Module):  # type: ignore[misc]
    """The sum of the ways' outputs feeds LN2 and the FFN only; the residual stays the way's own."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.group = config.mapping.tp_group
        self.ways = ModuleList([Way(config, layer_idx)])  # this rank's
        library = os.environ.get(OVERLAP_PLUGIN)
        self.overlap = Start(library) if library else None

    def forward(self, hidden_states: Any, use_cache: bool = False, **given: Any) -> Any:
        way, x = self.ways[0], hidden_states
        summed = None
        if self.layer_idx > 0:  # in layer 1 nothing crosses
            if self.overlap:
                x, summed = self.overlap.start(x, self.layer_idx)
            else:
                summed = allreduce(x, self.group)
        attended, presents = _attend(way.attention, way.input_layernorm(x), use_cache, given)
        own = x + attended
        mixed = own
        if summed is not None:
            if self.overlap:
                summed = self.overlap.wait(summed, attended, self.layer_idx)
            mixed = attended + summed
        out = own + way.mlp(way.post_layernorm(mixed))
        return (out, presents) if use_cache else out


class ParallelDecoderLayer(Module):  # type: ignore[misc]
    """Attention and FFN side by side with one sum behind both: their own projections reduce nothing."""

    def __init__(self, config: Any, layer_idx: int) -> None:
        super().__init__()
        self.mapping = config.mapping
        self.input_layernorm = _norm(config)
        self.attention = _attention(config, layer_idx, config.num_attention_heads, config.mapping.tp_size)
        self.mlp = _mlp(config, config.mapping.tp_size)

    def forward(self, hidden_states: Any, use_cache: bool = False, **given: Any) -> Any:
        normed = self.input_layernorm(hidden_states)
        attended, presents = _attend(self.attention, normed, use_cache, given)
        both = attended + self.mlp(normed)
        if self.mapping.tp_size > 1:
            both = allreduce(both, self.mapping.tp_group)
        out = hidden_states + both
        return (out, presents) if use_cache else out


class Stack(Module):  # type: ignore[misc]
    """Embeddings, layers, Kraken's row-parallel W_concat, final LayerNorm."""

    def __init__(self, config: Any, layer: Any, has_concat: bool) -> None:
        super().__init__()
        d = config.hidden_size
        self.vocab_embedding = Embedding(config.vocab_size, d, dtype=config.dtype)
        self.position_embedding = Embedding(config.max_position_embeddings, d, dtype=config.dtype)
        self.layers = DecoderLayerList(layer, config)
        self.concat = None
        if has_concat:
            mapping = config.mapping
            self.concat = RowLinear(
                config.n_ways * d,
                d,
                bias=False,
                dtype=config.dtype,
                tp_group=mapping.tp_group,
                tp_size=mapping.tp_size,
            )
        self.ln_f = _norm(config)

    def forward(self, input_ids: Any, position_ids: Any = None, use_cache: bool = False, **given: Any) -> Any:
        hidden = self.vocab_embedding(input_ids) + self.position_embedding(position_ids)
        hidden, presents = _attend(self.layers, hidden, use_cache, given)
        if self.concat is not None:
            hidden = self.concat(hidden)
        hidden = self.ln_f(hidden)
        return (hidden, presents) if use_cache else hidden


class KrakenForCausalLM(DecoderModelForCausalLM):  # type: ignore[misc]
    """One way a rank: tp_size must be the number of ways."""

    def __init__(self, config: Any) -> None:
        if config.n_ways != config.mapping.tp_size:
            raise ValueError(f"tp_size={config.mapping.tp_size}: must be n_ways={config.n_ways}, one way a rank")
        super().__init__(config, Stack(config, KrakenDecoderLayer, has_concat=True), _head(config))


class ParallelForCausalLM(DecoderModelForCausalLM):  # type: ignore[misc]
    """x + A(LN x) + F(LN x), one all-reduce a layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, Stack(config, ParallelDecoderLayer, has_concat=False), _head(config))


def _attend(module: Any, x: Any, use_cache: bool, given: dict[str, Any]) -> tuple[Any, Any]:
    """What attention or all layers make of x, and the keys and values they keep: None without a cache.

    Of what the runtime has `given`, they take these alone.
    """
    known = {key: given.get(key) for key in ("attention_mask", "kv_cache_params", "attention_params")}
    found = module(x, use_cache=use_cache, **known)
    return found if use_cache else (found, None)


def _norm(config: Any) -> Any:
    return LayerNorm(normalized_shape=config.hidden_size, eps=config.norm_epsilon, dtype=config.dtype)


def _attention(config: Any, layer_idx: int, heads: int, tp_size: int) -> Any:
    return Attention(
        local_layer_idx=layer_idx,
        hidden_size=config.hidden_size,
        num_attention_heads=heads,
        num_kv_heads=heads,
        attention_head_size=config.head_size,  # padded; q_scaling keeps the softmax scale of the true size
        max_position_embeddings=config.max_position_embeddings,
        num_layers=config.num_hidden_layers,
        q_scaling=config.q_scaling,
        attention_mask_type=AttentionMaskType.causal,
        position_embedding_type=config.position_embedding_type,
        bias=config.bias,
        dtype=config.dtype,
        tp_group=None,  # a sum, where there is one, is the layer's
        tp_size=tp_size,
        tp_rank=config.mapping.tp_rank if tp_size > 1 else 0,
        quant_mode=config.quant_mode,
    )


def _mlp(config: Any, tp_size: int) -> Any:
    return MLP(
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        hidden_act=config.hidden_act,
        bias=config.bias,
        dtype=config.dtype,
        tp_group=None,  # a sum, where there is one, is the layer's
        tp_size=tp_size,
        quant_mode=config.quant_mode,
    )


def _head(config: Any) -> Any:
    return ColumnLinear(
        config.hidden_size,
        pad_vocab_size(config.vocab_size, config.mapping.tp_size),
        bias=False,
        dtype=config.dtype,
        tp_group=config.mapping.tp_group,
        tp_size=config.mapping.tp_size,
        gather_output=True,
    )


def first_token_runner(engine_dir: str, rank: int) -> Any:
    """A function tokens -> None that runs the prompt to its first token on this rank, finished when it returns."""
    import torch
    from tensorrt_llm.runtime import ModelRunner

    torch.cuda.set_device(rank % torch.cuda.device_count())
    library = os.environ.get(OVERLAP_PLUGIN)
    if library:
        _give_communicator(ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL), rank)
    runner = ModelRunner.from_dir(engine_dir=engine_dir, rank=rank)

    def run(tokens: list[list[int]]) -> None:
        batch = [torch.tensor(row, dtype=torch.int32) for row in tokens]
        runner.generate(batch, max_new_tokens=1, end_id=-1, pad_id=0)
        torch.cuda.synchronize()

    return run


def _give_communicator(library: Any, rank: int) -> None:
    """Make the plugin's communicator: rank 0 draws an id, MPI carries it, all ranks join at the same time."""
    from tensorrt_llm._utils import mpi_comm

    communicator = mpi_comm()
    size = int(library.kraken_unique_id_bytes())
    drawn = ctypes.create_string_buffer(size)
    if rank == 0 and library.kraken_unique_id(drawn) != 0:
        raise RuntimeError("NCCL gave no id")
    shared = communicator.bcast(drawn.raw, root=0)
    if library.kraken_join(shared, rank, communicator.Get_size()) != 0:
        raise RuntimeError(f"rank {rank} could not join the plugin's communicator")


VERSION = tensorrt_llm.__version__
__all__ = ["VERSION", "KrakenForCausalLM", "ParallelForCausalLM", "Tensor", "first_token_runner"]
