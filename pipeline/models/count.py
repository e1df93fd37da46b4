"""What a model costs: parameters, FLOPs, bytes and collectives, from its shape alone."""

from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.models.build import build_model
from pipeline.models.placement import WHOLE, Placement, local_shape

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
COLLECTIVES_PER_LAYER = {"standard": 2, "parallel": 1, "ladder": 2, "desync": 1}


@dataclass(frozen=True)
class Collectives:
    """All-reduces of one forward: how many, how many of them nothing can hide, and of what width."""

    total: int
    blocking: int
    width: int  # elements per token


def parameters(config: ModelConfig, placement: Placement = WHOLE) -> int:
    """Exact number of parameters, counted on a model built on the meta device (head tied)."""
    model = build_model(config, placement, seed=None, device="meta")
    return sum(parameter.numel() for parameter in model.parameters())


def matrix_parameters(config: ModelConfig, placement: Placement = WHOLE) -> int:
    """Weights that every token is multiplied with in the layers and W_concat; no embeddings, no head."""
    shape = local_shape(config, placement)
    d = config.n_embd
    per_way = 4 * d * shape.n_head * shape.head_dim + 2 * d * shape.ffn_dim
    concat = shape.n_ways * d * d if config.architecture == "kraken" else 0
    return config.n_layer * shape.n_ways * per_way + concat


def attention_flops(config: ModelConfig, context: int, placement: Placement = WHOLE) -> int:
    """FLOPs of the scores and their use for one token that attends to `context` tokens."""
    shape = local_shape(config, placement)
    return 4 * config.n_layer * shape.n_ways * shape.n_head * shape.head_dim * context


def forward_flops_per_token(config: ModelConfig, context: int | None = None) -> int:
    """Forward FLOPs of one token, head included, averaged over a causal context (block_size by default)."""
    context = context or config.block_size
    head = 2 * config.n_embd * config.vocab_size
    return 2 * matrix_parameters(config) + attention_flops(config, context) // 2 + head


def training_flops_per_token(config: ModelConfig) -> int:
    """Forward and backward: three times the forward."""
    return 3 * forward_flops_per_token(config)


def prefill_flops(config: ModelConfig, batch_size: int, context: int, placement: Placement = WHOLE) -> int:
    """FLOPs of one rank from prompt to first token: all tokens through the layers, one through the head."""
    layers = context * (2 * matrix_parameters(config, placement) + attention_flops(config, context, placement) // 2)
    return batch_size * (layers + 2 * config.n_embd * config.vocab_size)


def kv_bytes_per_token(config: ModelConfig, dtype: str = "float16") -> int:
    """Bytes that keys and values of one token take over all layers and ways."""
    shape = local_shape(config)
    return 2 * config.n_layer * shape.n_ways * shape.n_head * shape.head_dim * BYTES[dtype]


def collectives(config: ModelConfig) -> Collectives:
    """All-reduces per forward under tensor parallelism (paper section 3, Table 1 of its facts)."""
    if config.architecture == "kraken":
        return Collectives(config.n_layer, 1, config.n_embd)  # L-1 that overlap, and W_concat's
    total = COLLECTIVES_PER_LAYER[config.architecture] * config.n_layer
    return Collectives(total, 2 if config.architecture == "ladder" else total, config.n_embd)


def prefill_collective_bytes(config: ModelConfig, batch_size: int, context: int, dtype: str = "float16") -> int:
    """Bytes that enter all-reduces on one rank from prompt to first token; Kraken's last is one token wide."""
    counted = collectives(config)
    tokens = counted.total * context
    if config.architecture == "kraken":
        tokens = (counted.total - 1) * context + 1
    return batch_size * tokens * counted.width * BYTES[dtype]


def training_memory_bytes(config: ModelConfig, micro_batch_size: int, precision: str) -> int:
    """A data-parallel worker's memory: weights, gradients and AdamW's two moments in float32, plus
    what the backward pass keeps. An estimate: activations are counted per layer, logits once in float32.
    """
    state = 16 * parameters(config)
    shape = local_shape(config)
    tokens = micro_batch_size * config.block_size
    heads = shape.n_head * shape.head_dim
    per_token = shape.n_ways * (6 * config.n_embd + 4 * heads + 3 * shape.ffn_dim)
    activations = tokens * config.n_layer * per_token * BYTES[precision]
    logits = 3 * tokens * config.vocab_size * 4
    return state + activations + logits
