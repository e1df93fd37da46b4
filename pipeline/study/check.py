"""What keeps a study from being run here, and what it would take."""

from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from pipeline.compose import model_config
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.experiment.identity import none_chosen
from pipeline.experiment.variant import chosen
from pipeline.models import count
from pipeline.provenance import usable_cores
from pipeline.study.arms import Models, cells, models, searched_sizes
from pipeline.study.settings import DECIDED
from pipeline.study.trials import Maker
from pipeline.training import plan, ray_trials


def faults(config: Config) -> list[str]:
    """A line for everything that lacks; raises ConfigError for a study that no machine can run.

    As many trials run side by side as there are cores, each of the largest model at the worst.
    """
    found = _models(config)
    assert config.study is not None
    if stated := [*_overridden(config), *_vocabulary(config, found)]:
        raise ConfigError("; ".join(stated))
    Maker(config, Path(), lambda architecture: {}, {}).check(config.study, found)  # tokens may not be there yet
    largest = max(found.values(), key=count.parameters)
    at_once = 1 if config.cluster.device == "cuda" else usable_cores()
    alone = {"num_workers": at_once, "tp_size": 1, "fsdp": False, "cpus_per_worker": 1}
    return plan.faults(
        [config.model_copy(update={"model": largest, "cluster": config.cluster.model_copy(update=alone)})]
    )


def notes(config: Config) -> list[str]:
    """What to bear in mind when the results are read."""
    sweep = config.sweep
    found = []
    if not sweep.search_every_size and len(sweep.sizes) > 1:
        found.append(f"recipes are searched at size {sweep.central_size} alone; other sizes take them over")
    if sweep.n_seeds < 3:
        found.append(f"sweep.n_seeds={sweep.n_seeds}: intervals over two seeds are very wide; three or more say more")
    return found


def _overridden(config: Config) -> Iterator[str]:
    """Settings of training that somebody set and that a study decides itself."""
    expected = chosen(config.scale.name, config.model.name, "training")
    for field, by in DECIDED.items():
        value = getattr(config.training, field)
        if config.training.name == expected["name"] and value != expected[field]:
            yield f"training.{field}={value}: decided by {by}"


def _vocabulary(config: Config, found: Models) -> Iterator[str]:
    entries, rows = config.data.tokenizer_vocab_size, min(model.vocab_size for model in found.values())
    if rows < entries:
        yield (
            f"data.tokenizer_vocab_size={entries}: more than the {rows} that the sizes' models have "
            f"(sweep.sizes); {rows} or fewer would do"
        )


def search_plan(config: Config) -> str:
    """A table of the trials that the search begins with; raises ConfigError where a study is none."""
    found, sweep = _models(config), config.sweep
    assert config.study is not None
    rows = [
        [
            *(size, arm, f"{count.parameters(model):,}", f"{count.layer_parameters(model):,}"),
            *(f"{model.n_embd}", f"{model.n_head}", len(sweep.learning_rates), len(sweep.init_stds)),
            f"{len(sweep.learning_rates) * sweep.search_tokens * count.training_flops_per_token(model):.2g}",
        ]
        for size in searched_sizes(sweep)
        for arm in config.study.arms
        if (model := found.get((arm, size))) is not None
    ]
    headers = [
        *("size", "arm", "parameters", "in layers", "width", "heads", "rates", "scales"),
        "FLOPs of all rates, none stopped",
    ]
    table = tabulate(rows, headers=headers, disable_numparse=True)
    return f"{table}\n\n{_at_once(config)}"


def quality_plan(config: Config) -> str:
    """A table of the runs; raises ConfigError where a study is none."""
    found, sweep = _models(config), config.sweep
    assert config.study is not None
    rows = [
        [
            *(cell.size, cell.arm, f"{count.parameters(found[cell.arm, cell.size]):,}"),
            *(" ".join(f"{tokens:,}" for tokens in cell.tokens), sweep.n_seeds),
            f"{sweep.n_seeds * cell.tokens[-1] * count.training_flops_per_token(found[cell.arm, cell.size]):.2g}",
        ]
        for cell in cells(config.study, sweep)
    ]
    table = tabulate(rows, headers=["size", "arm", "parameters", "tokens", "seeds", "FLOPs"], disable_numparse=True)
    return f"{table}\n\n{_at_once(config)}"


def _models(config: Config) -> Models:
    if config.study is None:
        raise ConfigError(none_chosen("study"))
    return models(config.study, config.sweep, model_config)


def _at_once(config: Config) -> str:
    each = " and ".join(f"{amount:g} {kind}" for kind, amount in ray_trials.resources(config.cluster).items())
    return f"A trial takes {each}; as many run side by side as there are."
