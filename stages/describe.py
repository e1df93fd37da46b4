"""Describe a model: exact parameters, FLOPs, KV bytes, collectives, as JSON.

    python -m stages.describe model=kraken_124m_4way
    python -m stages.describe all=true                      every trained model of the paper, one line each
    python -m stages.describe budget=124000000 n_ways=8 heads_per_way=2 head_multiple=8

Keys of budget=: n_layer, n_ways, heads_per_way, head_multiple, vocab_size, block_size.
"""

import json
import sys
from typing import Any

from pipeline.config import ModelConfig
from pipeline.errors import ConfigError

PAPER_MODELS = (
    "kraken_124m_2way",
    "kraken_124m_4way",
    "kraken_124m_6way",
    "kraken_355m_2way",
    "kraken_355m_4way",
    "kraken_760m_4way",
)
BUDGET_KEYS = ("budget", "n_layer", "n_ways", "heads_per_way", "head_multiple", "vocab_size", "block_size")


def describe(model: ModelConfig) -> dict[str, object]:
    """Everything that follows from the shape alone; all values are exact, none is measured."""
    from pipeline.models import count
    from pipeline.models.placement import head_dim

    counted = count.collectives(model)
    return {
        "model": model.name,
        "architecture": model.architecture,
        "parameters": count.parameters(model),
        "n_layer": model.n_layer,
        "n_ways": model.n_ways,
        "n_embd": model.n_embd,
        "head_dim": head_dim(model),
        "forward_flops_per_token": count.forward_flops_per_token(model),
        "training_flops_per_token": count.training_flops_per_token(model),
        "kv_bytes_per_token_float16": count.kv_bytes_per_token(model),
        "collectives_per_forward": counted.total,
        "blocking_collectives_per_forward": counted.blocking,
        "collective_elements_per_token": counted.width,
    }


def describe_one(arguments: list[str]) -> None:
    from pipeline.compose import compose

    print(json.dumps(describe(compose(arguments).model), indent=2))


def describe_all() -> None:
    from pipeline.compose import model_config

    for name in PAPER_MODELS:
        print(json.dumps(describe(model_config(name))))


def solve(arguments: list[str]) -> None:
    """budget=… n_ways=…: the width that fits."""
    from pipeline.config.parsing import parse_group
    from pipeline.models.budget import solve_width

    given: dict[str, int] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in BUDGET_KEYS or not value.isdecimal() or int(value) == 0:
            raise ConfigError(f"{argument}: budget= takes {', '.join(BUDGET_KEYS)}, each a whole number above 0")
        given[key] = int(value)
    budget, head_multiple = given.pop("budget"), given.pop("head_multiple", 1)
    ways = given.setdefault("n_ways", 4)
    heads = given.pop("heads_per_way", 12 // ways or 1)
    shape: dict[str, Any] = {"n_layer": 12, "n_head": heads * ways, "n_embd": heads, "ffn_expansion": 2, **given}
    template = parse_group("model", {"name": "budget", "architecture": "kraken", **shape}, "budget")
    assert isinstance(template, ModelConfig)
    width = solve_width(template, budget, heads, head_multiple)
    print(json.dumps(width.__dict__, indent=2))


def _check_alone(arguments: list[str]) -> None:
    if more := [argument for argument in arguments if argument != "all=true"]:
        raise ConfigError(f"{' '.join(more)}: all=true describes the shipped models as they are and takes nothing else")


def main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
    elif any(argument.startswith("budget=") for argument in arguments):
        solve(arguments)
    elif "all=true" in arguments:
        _check_alone(arguments)
        describe_all()
    else:
        describe_one(arguments)


if __name__ == "__main__":
    from pipeline.experiment.run import guarded

    raise SystemExit(guarded(lambda: main(sys.argv[1:])))
