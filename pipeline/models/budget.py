"""Budgets of parameters and of FLOPs: the width that keeps one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.models.architectures import block_of
from pipeline.models.placement import Placement, head_dim, local_shape, shape_faults

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
    if parameters < (least := count_at(step)) / 2:
        raise ConfigError(
            f"parameters={parameters}: too few for {n_ways} ways of {heads_per_way} heads, each a multiple of "
            f"{head_multiple} wide; {least} is the least"
        )
    low = max(1, math.floor(_steps(count_at, step, parameters)))
    best = min((low * step, (low + 1) * step), key=lambda width: abs(count_at(width) - parameters))
    return Width(best, head_dim(at(best)), count_at(best))


def solve_flops(
    template: ModelConfig, like: ModelConfig, tp_size: int, contexts: Sequence[int], multiple: int = 8
) -> ModelConfig:
    """The template with a way a rank whose prefill FLOPs are nearest to a rank's of `like`, the worst context counting.

    A way has the heads of one rank of `like`, as wide as there, so that attention costs the same at every context;
    n_embd, a multiple of `multiple`, does the rest. Raises ConfigError where tp_size does not divide `like`, and
    where the template's architecture has no ways of its own width.
    """
    if block_of(template.architecture).ways != "own":
        raise ConfigError(f"model.architecture={template.architecture}: its ways have no width of their own to solve")
    here = Placement(0, tp_size)
    share = local_shape(like, here)
    goal = {context: count.prefill_flops(like, 1, context, here) for context in contexts}

    def at(width: int) -> ModelConfig:
        shape = {"n_ways": tp_size, "n_head": tp_size * share.n_head, "head_dim": share.head_dim, "n_embd": width}
        return template.model_copy(update=shape)

    def flops(width: int, context: int) -> int:
        return count.prefill_flops(at(width), 1, context, here)

    exact = [
        _steps(lambda width, context=context: flops(width, context), multiple, goal[context])  # type: ignore[misc]
        for context in contexts
    ]
    near = range(max(1, math.floor(min(exact))), math.ceil(max(exact)) + 1)
    return at(
        min(
            (steps * multiple for steps in near),
            key=lambda width: max(abs(flops(width, context) / goal[context] - 1) for context in contexts),
        )
    )


def _steps(cost: Callable[[int], int], step: int, goal: int) -> float:
    """How many steps of width cost `goal`."""
    # every matrix is d × d or d × constant: three widths tell the whole quadratic a·k² + b·k + c of k = width / step
    one, two, three = (cost(k * step) for k in (1, 2, 3))
    a = (three - 2 * two + one) / 2
    b = two - one - 3 * a
    c = one - a - b
    return (math.sqrt(max(0.0, b * b + 4 * a * (goal - c))) - b) / (2 * a)
