"""Which part of a model lives on which rank."""

from dataclasses import dataclass

from pipeline.config.model import ARCHITECTURES_WITH_WAYS, ModelConfig
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Placement:
    """Rank `rank` of `tp_size`: whole ways for Kraken and Desync, Megatron shards for the others."""

    rank: int = 0
    tp_size: int = 1


WHOLE = Placement()


@dataclass(frozen=True)
class LocalShape:
    """Sizes of one rank's part; heads and FFN width are per way."""

    n_ways: int
    n_head: int
    head_dim: int
    ffn_dim: int


def local_shape(config: ModelConfig, placement: Placement = WHOLE) -> LocalShape:
    """Sizes on one rank; raises ConfigError where tp_size does not divide the ways or the heads."""
    tp_size = placement.tp_size
    if config.architecture in ARCHITECTURES_WITH_WAYS:
        if config.n_ways % tp_size:
            raise ConfigError(f"tp_size={tp_size}: must divide the {config.n_ways} ways of {config.name}")
        shared = 1 if config.architecture == "kraken" else config.n_ways
        return LocalShape(config.n_ways // tp_size, config.heads_per_way, config.head_dim, config.ffn_dim // shared)
    if config.n_head % tp_size or config.ffn_dim % tp_size:
        raise ConfigError(
            f"tp_size={tp_size}: must divide the {config.n_head} heads and the FFN width "
            f"{config.ffn_dim} of {config.name}"
        )
    return LocalShape(1, config.n_head // tp_size, config.head_dim, config.ffn_dim // tp_size)
