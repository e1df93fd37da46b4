"""Which part of a model lives on which rank, and which shapes can be."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.architectures import block_of
from pipeline.models.block import LocalShape

MIXING = ("mixing", "mixes_first_layer", "init_over_ways")  # fields for architectures that mix their ways
FORWARD = (
    "mixing",
    "mixes_first_layer",
    "position",
    "tie_embeddings",
    "head_dim",
)  # fields by which a forward may differ


@dataclass(frozen=True)
class Placement:
    """Rank `rank` of `tp_size`: whole ways where an architecture has them, Megatron shards elsewhere."""

    rank: int = 0
    tp_size: int = 1


WHOLE = Placement()


def has_ways(config: ModelConfig) -> bool:
    return block_of(config.architecture).ways != "none"


def head_dim(config: ModelConfig) -> int:
    """Width of one attention head: as set, else of the way's width where ways are blocks of their own."""
    if config.head_dim is not None:
        return config.head_dim
    heads = config.heads_per_way if block_of(config.architecture).ways == "own" else config.n_head
    return config.n_embd // heads


def local_shape(config: ModelConfig, placement: Placement = WHOLE) -> LocalShape:
    """Sizes on one rank; raises ConfigError where tp_size does not divide the ways or the heads."""
    faults = tp_size_faults(config, placement.tp_size, "tp_size")
    if faults:
        raise ConfigError("; ".join(faults))
    ffn = config.ffn_expansion * config.n_embd
    ways = block_of(config.architecture).ways
    if ways == "none":
        return LocalShape(1, config.n_head // placement.tp_size, head_dim(config), ffn // placement.tp_size)
    shared = 1 if ways == "own" else config.n_ways
    return LocalShape(config.n_ways // placement.tp_size, config.heads_per_way, head_dim(config), ffn // shared)


def vocabulary_share(config: ModelConfig, placement: Placement = WHOLE) -> range:
    """Tokens whose logits a rank computes to sample one: V / N of them, one more on the first V mod N ranks."""
    each, more = divmod(config.vocab_size, placement.tp_size)
    start = placement.rank * each + min(placement.rank, more)
    return range(start, start + each + (1 if placement.rank < more else 0))


def tp_size_faults(config: ModelConfig, tp_size: int, key: str) -> list[str]:
    """Why a model cannot be split over tp_size ranks; `key` names the field to blame."""
    if has_ways(config):
        if config.n_ways % tp_size:
            return [
                f"{key}={tp_size}: must divide the {config.n_ways} ways of {config.name}; "
                f"{_divisors(config.n_ways)} would be"
            ]
        return []
    ffn = config.ffn_expansion * config.n_embd
    if config.n_head % tp_size or ffn % tp_size:
        return [
            f"{key}={tp_size}: must divide the {config.n_head} heads and the FFN width {ffn} of {config.name}; "
            f"{_divisors(config.n_head)} would be"
        ]
    return []


def shape_faults(config: ModelConfig) -> list[str]:
    """Everything that keeps this shape from being built, each as "key=value: what is wrong; what would be right"."""
    try:
        block = block_of(config.architecture)
    except ConfigError as error:
        return [str(error)]
    faults = []
    if config.n_ways > 1 and block.ways == "none":
        faults.append(f"model.n_ways={config.n_ways}: a {config.architecture} model has one way; set n_ways=1")
    if config.n_head % config.n_ways:
        faults.append(
            f"model.n_head={config.n_head}: must be divisible by n_ways={config.n_ways}; "
            f"{_nearest_multiple(config.n_head, config.n_ways)} would be"
        )
    else:
        heads = config.heads_per_way if block.ways == "own" else config.n_head
        if config.head_dim is None and config.n_embd % heads:
            faults.append(
                f"model.n_embd={config.n_embd}: must be divisible by the {heads} heads that share it; "
                f"{_nearest_multiple(config.n_embd, heads)} would be"
            )
    ffn = config.ffn_expansion * config.n_embd
    if block.ways == "split" and ffn % config.n_ways:
        faults.append(f"model.n_ways={config.n_ways}: must divide the FFN width {ffn}")
    if config.bias and not block.biases:
        faults.append(f"model.bias=true: {config.architecture} models have no biases")
    if not block.mixes:
        faults += [
            f"model.{part}: only kraken models mix ways; {_default(part.partition('=')[0])} would be right"
            for part in own_parts(config, MIXING)
        ]
    elif config.mixes_first_layer and config.mixing in ("none", "mean"):
        why = {
            "none": "model.mixing=none mixes in no layer",
            "mean": "model.mixing=mean would give the first layer the embedding again, the mean of equal streams",
        }[config.mixing]
        faults.append(f"model.mixes_first_layer=true: {why}; false would be right")
    return faults


def own_parts(config: ModelConfig, fields: Sequence[str] = FORWARD) -> list[str]:
    """What of a model is not as its architecture has it by default, each as field=value: others must know of it."""
    named = {name: getattr(config, name) for name in fields}
    return [f"{name}={_text(value)}" for name, value in named.items() if _text(value) != _default(name)]


def _default(field: str) -> str:
    return _text(ModelConfig.model_fields[field].default)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def weights_identity(config: ModelConfig) -> dict[str, object]:
    """What a checkpoint must agree in: schedules of one architecture share their weights."""
    owner = block_of(config.architecture).weights_of or config.architecture
    return {**config.identity(), "architecture": owner, "head_dim": head_dim(config)}


def check_trainable(config: ModelConfig) -> None:
    """Raise ConfigError where an architecture has no weights of its own."""
    owner = block_of(config.architecture).weights_of
    if owner is not None:
        raise ConfigError(
            f"model.architecture={config.architecture}: runs the weights of {owner} models and has none of its own to "
            f"train; train the {owner} model instead"
        )


def _divisors(number: int) -> str:
    return ", ".join(str(value) for value in range(1, number + 1) if number % value == 0)


def _nearest_multiple(value: int, of: int) -> int:
    return max(of, round(value / of) * of)
