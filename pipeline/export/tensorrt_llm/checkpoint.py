"""engine=checkpoint: a rank's weights a file, in TensorRT-LLM's layout."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline import files
from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.export.heads import torch_dtype
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec, check_parts
from pipeline.export.tensor_file import write_tensors
from pipeline.export.tensorrt_llm.layout import RankTensors
from pipeline.export.weights import WeightSource
from pipeline.models.placement import head_dim

FORMAT = "1.2.1"  # the last release that builds engines; the layout is the same since 0.12
COVERED = (
    "standard",
    "kraken",
    "parallel",
    "ladder",
    "desync",
    "parallel_track",
    "standard_split",
)  # read back in tests
CLASSES = {"standard": "GPTForCausalLM", "kraken": "KrakenForCausalLM", "parallel": "ParallelForCausalLM"}


class CheckpointMaker:
    """Exports every rank; TensorRT-LLM has classes for three of the architectures. ConfigError for one not covered."""

    module, version = "tensorrt_llm checkpoint", FORMAT
    target: str | None = None
    status = "small models of this architecture are read back in the tests with equal logits; never by tensorrt_llm"

    def __init__(self, spec: EngineSpec) -> None:
        if spec.model.architecture not in COVERED:
            raise ConfigError(
                f"model.architecture={spec.model.architecture}: engine=checkpoint exports {', '.join(COVERED)}; "
                "for others the layout is untested; engine=tensorrt builds them all"
            )
        check_parts(spec.model, spec.engine)
        self.spec = spec

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        export(self.spec, source, folder, say)
        return {"class_name": class_name(self.spec.model)}


def class_name(model: ModelConfig) -> str | None:
    """The model class in TensorRT-LLM or in model.py; None where there is none."""
    return CLASSES.get(model.architecture)


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
    """config.json as trtllm-build reads it; what it has no place for stands in spec.json."""
    model = spec.model
    return {
        "architecture": class_name(model) or model.architecture,
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
