"""What a model costs: parameters, FLOPs, bytes and collectives, counted on the model itself on the meta device."""

from dataclasses import dataclass
from functools import lru_cache

from pipeline.config.model import ModelConfig
from pipeline.models.build import build_model
from pipeline.models.layers import Attention, WayLinear
from pipeline.models.placement import WHOLE, Placement, local_shape
from pipeline.models.trace import trace
from pipeline.models.transformer import Transformer

TABLES = ("wte.weight", "wpe.weight", "lm_head.weight")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Collectives:
    """All-reduces of one forward: how many, how many of them nothing can hide, and of what width."""

    total: int
    blocking: int
    width: int  # elements per token


@lru_cache(maxsize=64)
def _on_meta(config: ModelConfig, placement: Placement) -> Transformer:
    return build_model(config, placement, seed=None, device="meta")


def parameters(config: ModelConfig, placement: Placement = WHOLE) -> int:
    """Exact number of parameters; a tied head is the embedding and counts once."""
    return sum(parameter.numel() for parameter in _on_meta(config, placement).parameters())


def layer_parameters(config: ModelConfig) -> int:
    """Every parameter but those that grow with the vocabulary or the context: wte, wpe and lm_head."""
    named = _on_meta(config, WHOLE).named_parameters()
    return sum(parameter.numel() for name, parameter in named if name not in TABLES)


def matrix_parameters(config: ModelConfig, placement: Placement = WHOLE) -> int:
    """Weights that tokens are multiplied with in the layers and in front of the head; no embeddings, no head."""
    modules = _on_meta(config, placement).modules()
    return sum(module.weight.numel() for module in modules if isinstance(module, WayLinear))


def attention_flops(config: ModelConfig, context: int, placement: Placement = WHOLE) -> int:
    """FLOPs of the scores and their use for one token that attends to `context` tokens."""
    modules = _on_meta(config, placement).modules()
    return sum(4 * module.out.weight.shape[:2].numel() * context for module in modules if isinstance(module, Attention))


def forward_flops_per_token(config: ModelConfig, context: int | None = None) -> int:
    """Forward FLOPs of one token, head included, averaged over a causal context (block_size by default)."""
    context = context or config.block_size
    return round(trace(config, 1, 1, context, last_only=False).flops / context)


def training_flops_per_token(config: ModelConfig) -> int:
    """Forward and backward: three times the forward."""
    return 3 * forward_flops_per_token(config)


def prefill_flops(config: ModelConfig, batch_size: int, context: int, placement: Placement = WHOLE) -> int:
    """FLOPs of one rank from prompt to first token, with its share of the head."""
    return round(trace(config, placement.tp_size, batch_size, context).flops)


def kv_bytes_per_token(config: ModelConfig, dtype: str = "float16") -> int:
    """Bytes that keys and values of one token take over all layers and ways."""
    shape = local_shape(config)
    return 2 * config.n_layer * shape.n_ways * shape.n_head * shape.head_dim * BYTES[dtype]


def collectives(config: ModelConfig) -> Collectives:
    """All-reduces per forward under tensor parallelism (paper section 3)."""
    traced = trace(config, 1, 1, config.block_size)
    width = max((start.width for start in traced.starts), default=0)
    return Collectives(len(traced.starts), len(traced.blocking), width)


def prefill_collective_bytes(config: ModelConfig, batch_size: int, context: int, dtype: str = "float16") -> int:
    """Bytes that enter all-reduces on one rank from prompt to first token."""
    return BYTES[dtype] * sum(start.elements for start in trace(config, 1, batch_size, context).starts)


def training_memory_bytes(
    config: ModelConfig,
    micro_batch_size: int,
    precision: str,
    logits_bytes: int,
    tp_size: int = 1,
    state_shards: int = 1,
) -> int:
    """A rank's memory: weights, gradients and AdamW's two moments in float32, plus what the backward pass keeps.

    Of a copy of the model over `tp_size` ranks, whose state FSDP cuts into `state_shards`. An estimate: activations
    are counted per layer; of logits, `logits_bytes` stand at once, twice, and the head's gradient beside the
    embedding's; a layer that FSDP gathers is not counted.
    """
    placement = Placement(0, tp_size)
    state = 16 * parameters(config, placement) // state_shards
    shape = local_shape(config, placement)
    tokens = micro_batch_size * config.block_size
    heads = shape.n_head * shape.head_dim
    per_token = shape.n_ways * (6 * config.n_embd + 4 * heads + 3 * shape.ffn_dim)
    activations = tokens * config.n_layer * per_token * BYTES[precision]
    logits = min(logits_bytes, tokens * config.vocab_size * 4 // tp_size)
    return state + activations + 2 * logits + 4 * config.vocab_size * config.n_embd
