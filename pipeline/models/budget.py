"""The parameter budget: the width that gives a model a chosen number of parameters."""

import math
from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.models.architectures import block_of


@dataclass(frozen=True)
class Width:
    """A width and what it costs."""

    n_embd: int
    head_dim: int
    parameters: int


def solve_width(
    parameters: int,
    n_layer: int,
    n_ways: int,
    heads_per_way: int,
    vocab_size: int = 50304,
    block_size: int = 1024,
    head_multiple: int = 1,
    architecture: str = "kraken",
    ffn_expansion: int = 2,
) -> Width:
    """The width whose parameter count is nearest to `parameters`.

    The width is such that every head is a multiple of `head_multiple` wide (8 for most fused attention kernels).
    Raises ConfigError where not even the narrowest such model fits the budget.
    """
    if min(parameters, n_layer, n_ways, heads_per_way, vocab_size, block_size, head_multiple) < 1:
        raise ConfigError("the parameter budget, layers, ways, heads and multiples must all be at least 1")
    sharing = heads_per_way if block_of(architecture).ways == "own" else heads_per_way * n_ways
    step = sharing * head_multiple

    def count_at(width: int) -> int:
        config = ModelConfig(
            name="budget",
            architecture=architecture,
            n_layer=n_layer,
            n_head=heads_per_way * n_ways,
            n_embd=width,
            n_ways=n_ways,
            ffn_expansion=ffn_expansion,
            vocab_size=vocab_size,
            block_size=block_size,
        )
        return count.parameters(config)

    # every matrix is d × d or d × constant: three widths tell the whole quadratic a·k² + b·k + c of k = width / step
    one, two, three = (count_at(k * step) for k in (1, 2, 3))
    if parameters < one / 2:
        raise ConfigError(
            f"parameters={parameters}: too few for {n_ways} ways of {heads_per_way} heads, each a multiple of "
            f"{head_multiple} wide; {one} is the least"
        )
    a = (three - 2 * two + one) / 2
    b = two - one - 3 * a
    c = one - a - b
    exact = (math.sqrt(max(0.0, b * b + 4 * a * (parameters - c))) - b) / (2 * a)
    low = max(1, math.floor(exact))
    best = min((low * step, (low + 1) * step), key=lambda width: abs(count_at(width) - parameters))
    return Width(best, best // sharing, count_at(best))
