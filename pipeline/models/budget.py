"""The parameter budget: the width that gives a model a chosen number of parameters."""

import math
from dataclasses import dataclass
from typing import Literal

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.models.architectures import block_of
from pipeline.models.placement import shape_faults

Counts = Literal["all", "layers"]  # layers: no embeddings and no head
COUNT = {"all": count.parameters, "layers": count.layer_parameters}


@dataclass(frozen=True)
class Width:
    """A width and what it costs: `parameters` as they were to be counted."""

    n_embd: int
    head_dim: int
    parameters: int


def solve_width(
    template: ModelConfig, parameters: int, heads_per_way: int, head_multiple: int = 1, counts: Counts = "all"
) -> Width:
    """The width whose parameter count is nearest to `parameters`; all else is the template's but n_embd and n_head.

    The width is such that every head is a multiple of `head_multiple` wide (8 for most fused attention kernels).
    `counts` says which parameters count. Raises ConfigError where not even the narrowest such model fits the budget,
    and where the template cannot be built at any width.
    """
    if min(parameters, heads_per_way, head_multiple) < 1:
        raise ConfigError("the parameter budget, heads and multiples must all be at least 1")
    n_ways = template.n_ways
    sharing = heads_per_way if block_of(template.architecture).ways == "own" else heads_per_way * n_ways
    step = sharing * head_multiple

    def at(width: int) -> ModelConfig:
        return template.model_copy(update={"n_head": heads_per_way * n_ways, "n_embd": width})

    def count_at(width: int) -> int:
        return COUNT[counts](at(width))

    if faults := shape_faults(at(step)):
        raise ConfigError("; ".join(faults))
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
