"""Architectures that differ in one block, behind one forward for all placements."""

from pipeline.models.block import LocalShape
from pipeline.models.build import build_model
from pipeline.models.cache import KeyValueCache
from pipeline.models.placement import WHOLE, Placement, local_shape
from pipeline.models.shard import shard_state
from pipeline.models.transformer import Transformer

__all__ = [
    "WHOLE",
    "KeyValueCache",
    "LocalShape",
    "Placement",
    "Transformer",
    "build_model",
    "local_shape",
    "shard_state",
]
