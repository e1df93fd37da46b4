"""The parameter budget: the width that gives a Kraken model a chosen number of parameters."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Width:
    """A width and what it costs."""

    n_embd: int
    head_dim: int
    parameters: int


def kraken_parameters(n_embd: int, n_layer: int, n_ways: int, vocab_size: int, block_size: int) -> int:
    """V·d + block_size·d + N·L·(8d² + 2d) + N·d² + d (paper facts, section 1)."""
    d = n_embd
    return vocab_size * d + block_size * d + n_ways * n_layer * (8 * d * d + 2 * d) + n_ways * d * d + d


def solve_width(
    parameters: int,
    n_layer: int,
    n_ways: int,
    heads_per_way: int,
    vocab_size: int = 50304,
    block_size: int = 1024,
    head_multiple: int = 1,
) -> Width:
    """The width whose parameter count is nearest to `parameters`.

    The width is a multiple of `heads_per_way` × `head_multiple`, so that every head is a multiple of
    `head_multiple` wide (8 for most fused attention kernels). Raises ConfigError where not even one
    such multiple fits the budget.
    """
    if min(parameters, n_layer, n_ways, heads_per_way, vocab_size, block_size, head_multiple) < 1:
        raise ConfigError("the parameter budget, layers, ways, heads and multiples must all be at least 1")
    step = heads_per_way * head_multiple
    quadratic = n_ways * (8 * n_layer + 1)
    linear = vocab_size + block_size + 2 * n_ways * n_layer + 1
    exact = (math.sqrt(linear**2 + 4 * quadratic * parameters) - linear) / (2 * quadratic)
    if exact < step / 2:
        raise ConfigError(
            f"parameters={parameters}: too few for {n_ways} ways of {heads_per_way} heads, each a multiple of "
            f"{head_multiple} wide; {kraken_parameters(step, n_layer, n_ways, vocab_size, block_size)} is the least"
        )
    low = max(1, math.floor(exact / step))
    candidates = [low * step, (low + 1) * step]
    counts = {d: kraken_parameters(d, n_layer, n_ways, vocab_size, block_size) for d in candidates}
    best = min(candidates, key=lambda d: abs(counts[d] - parameters))
    return Width(best, best // heads_per_way, counts[best])
