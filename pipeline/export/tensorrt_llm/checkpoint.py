"""engine=checkpoint: a rank's weights a file, in TensorRT-LLM's layout, and the way back into a model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.config.model import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.export.heads import PaddedAttention, torch_dtype
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.tensor_file import BLOCK_BYTES, TensorFile, write_tensors
from pipeline.export.tensorrt_llm.layout import RankTensors, entries
from pipeline.export.weights import WeightSource
from pipeline.models import Placement, Transformer, build_model
from pipeline.models.placement import has_ways, head_dim
from pipeline.models.shard import REPLICATED, ROW_PARALLEL_BIASES

FORMAT = "1.2.1"  # the last release that builds engines; the layout is the same since 0.12
CLASSES = {"standard": "GPTForCausalLM", "kraken": "KrakenForCausalLM", "parallel": "ParallelForCausalLM"}


class CheckpointMaker:
    """Exports every rank. All architectures; TensorRT-LLM itself has classes for three of them."""

    module, version = "tensorrt_llm checkpoint", FORMAT
    target: str | None = None
    status = "written; read back by the pipeline with equal logits, not by tensorrt_llm itself"

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        export(self.spec, source, folder, say)
        return {"class_name": class_name(self.spec.model)}


def class_name(model: ModelConfig) -> str:
    """The model class in TensorRT-LLM; the name alone where there is none."""
    return CLASSES.get(model.architecture, f"{model.architecture.capitalize()}ForCausalLM")


def export(
    spec: EngineSpec, source: WeightSource, folder: Path, say: Callable[[str], None] = lambda line: None
) -> None:
    """Write config.json, spec.json and rank<r>.safetensors; holds a block of one tensor of one rank at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch_dtype(spec.dtype)
    for rank in range(spec.tp_size):
        size = export_rank(spec, source, folder, rank, dtype)
        say(f"rank {rank}: {size / 1e6:.1f} MB")
    files.write_json(folder / "config.json", config_body(spec))
    files.write_json(folder / SPEC, spec.body())


def export_rank(spec: EngineSpec, source: WeightSource, folder: Path, rank: int, dtype: torch.dtype) -> int:
    """One rank's file; returns its bytes."""
    tensors = RankTensors(spec, source, rank, dtype)
    return write_tensors(folder / f"rank{rank}.safetensors", tensors.shapes, dtype, tensors.blocks)


def config_body(spec: EngineSpec) -> dict[str, Any]:
    """config.json as trtllm-build reads it; what only we need for the way back stands in spec.json."""
    model = spec.model
    return {
        "architecture": class_name(model),
        "dtype": spec.dtype,
        "logits_dtype": "float32",
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.block_size,
        "hidden_size": model.n_embd,
        "num_hidden_layers": model.n_layer,
        "num_attention_heads": model.n_head,  # over all ways: the runtime divides them by tp_size
        "num_key_value_heads": model.n_head,
        "head_size": spec.head_dim,
        "intermediate_size": model.ffn_expansion * model.n_embd,
        "hidden_act": "gelu_new",  # the tanh approximation
        "norm_epsilon": model.layer_norm_eps,
        "position_embedding_type": "learned_absolute",
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        "bias": model.bias,
        "q_scaling": math.sqrt(head_dim(model) / spec.head_dim),  # scores are divided by q_scaling · √head_size
        "apply_query_key_layer_scaling": False,
        "gpt_variant": "gpt2",
        "n_ways": model.n_ways,
        "mapping": {"world_size": spec.tp_size, "tp_size": spec.tp_size, "pp_size": 1},
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    }


def load_rank(folder: Path, rank: int, dtype: torch.dtype = torch.float32) -> Transformer:
    """One rank of an exported checkpoint as a model with padded heads; raises CheckpointError."""
    spec = EngineSpec.read(folder / SPEC)
    if not 0 <= rank < spec.tp_size:
        raise CheckpointError(f"{folder} holds ranks 0 to {spec.tp_size - 1}, not {rank}")
    placement = spec.placement(rank)
    model = build_model(spec.model, placement, seed=None, dtype=dtype)
    if spec.head_dim != head_dim(spec.model):
        _pad(model, spec, dtype)
    parameters = dict(model.named_parameters())
    wanted = entries(spec, rank, parameters)
    with TensorFile(folder / f"rank{rank}.safetensors") as file, torch.no_grad():
        found = {name: entry.shape for name, entry in file.entries.items()}
        expected = {name: entry.shape for name, entry in wanted.items()}
        if found != expected:
            odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise CheckpointError(f"{file.path} does not match its config.json: {', '.join(odd[:4])}")
        for name, entry in wanted.items():
            if entry.source is None or name == "lm_head.weight":
                continue
            _put(parameters[entry.source], file.entries[name][:], entry.source, entry.way, placement)
    return model


def _put(parameter: nn.Parameter, tensor: Tensor, name: str, way: int, placement: Placement) -> None:
    """Copy a tensor of the file into the parameter it came from."""
    if name in ("wte.weight", "wpe.weight"):
        parameter.copy_(tensor)
    elif name == "concat.project.weight":  # (d, W·d) -> (W, d, d)
        parameter.copy_(tensor.T.reshape(parameter.shape))
    elif name.endswith(ROW_PARALLEL_BIASES) and placement.rank > 0:
        parameter.zero_()  # rank 0 adds it once
    else:
        parameter[way].copy_(tensor.T if tensor.dim() == 2 else tensor)


def _pad(model: Transformer, spec: EngineSpec, dtype: torch.dtype) -> None:
    shape, config = model.shape, spec.model
    for block in model.blocks:
        block.attn = PaddedAttention(
            shape.n_ways, shape.n_head, shape.head_dim, spec.head_dim, config.n_embd, config.bias
        ).to(dtype)


def rank_bytes(spec: EngineSpec, rank: int = 0) -> int:
    """Bytes of one rank's file without its header, from shapes alone."""
    names = dict(build_model(spec.model, spec.placement(rank), seed=None, device="meta").named_parameters())
    size = torch_dtype(spec.dtype).itemsize
    return sum(math.prod(entry.shape) * size for entry in entries(spec, rank, names).values())


def working_bytes(spec: EngineSpec) -> int:
    """An upper bound of what an export of a trained model holds at a time, from shapes alone.

    A table comes in blocks: the last one, the next, and each converted. A matrix comes whole as float32, then as
    its part, padded, converted and turned: four copies of the part at most.
    """
    whole = dict(build_model(spec.model, seed=None, device="meta").named_parameters())
    local = dict(build_model(spec.model, spec.placement(0), seed=None, device="meta").named_parameters())
    widened = spec.head_dim / head_dim(spec.model)
    apart = has_ways(spec.model)  # ways are read slice by slice, Megatron's parts cut from wholes
    most = 3 * BLOCK_BYTES
    for name, parameter in local.items():
        if name in REPLICATED:
            continue
        read = parameter if apart else whole[name]
        most = max(most, 4 * (read.numel() + int(4 * widened * parameter.numel())))
    return most
