"""One rank's weights for an engine: a trained model's slice, or random numbers drawn on the shard."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.model import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.export.heads import pad_heads
from pipeline.export.tensor_file import StoredTensor, TensorFile
from pipeline.models import Placement, build_model, local_shape
from pipeline.models.checkpoint import WEIGHTS, check_same_weights, read_config, verify
from pipeline.models.placement import has_ways
from pipeline.models.shard import REPLICATED, shard
from pipeline.provenance import fingerprint

SEED = 1337


class RankWeights:
    """One rank's parameters under the pipeline's names and shapes, heads padded to `head_dim`."""

    def __init__(self, config: ModelConfig, placement: Placement, head_dim: int, parameters: dict[str, Tensor]) -> None:
        self.config, self.placement, self.head_dim = config, placement, head_dim
        self.shape = local_shape(config, placement)
        self.parameters = parameters  # of the true head size; on meta where the numbers are in a file

    def names(self) -> list[str]:
        return list(self.parameters)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of `read`, without reading."""
        return tuple(self.padded(name, self.parameters[name]).shape)

    def padded(self, name: str, tensor: Tensor) -> Tensor:
        return pad_heads(name, tensor, self.shape.n_head, self.shape.head_dim, self.head_dim)

    def read(self, name: str) -> Tensor:
        """The whole parameter of this rank."""
        return self.padded(name, self.parameters[name])

    def blocks(self, name: str) -> Iterator[Tensor]:
        """The same in pieces along its first axis, in order: large tables of a file never stand in memory whole."""
        yield self.read(name)


class RandomSource:
    """The paper's initial weights: no process ever holds a whole model."""

    kind = "random"

    def __init__(self, config: ModelConfig, seed: int = SEED) -> None:
        self.config, self.seed = config, seed

    def identity(self) -> str:
        """Names the numbers themselves: equal identities, equal weights."""
        return f"random-{self.seed}"

    def rank(self, placement: Placement, head_dim: int, dtype: torch.dtype) -> RankWeights:
        """Random weights of one rank, drawn in the engine's type."""
        model = build_model(self.config, placement, self.seed, dtype=dtype).requires_grad_(False)
        return RankWeights(self.config, placement, head_dim, dict(model.named_parameters()))


class TrainedSource:
    """A finished model's folder. Raises CheckpointError where it is missing, damaged or of another shape."""

    kind = "trained"

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        check_same_weights(folder, read_config(folder), config)
        self.folder, self.config = folder, config
        self._check()

    def _check(self) -> None:
        """Names and shapes of the file against the configuration, from its header alone."""
        path = self.folder / WEIGHTS
        model = build_model(self.config, seed=None, device="meta")
        expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        with TensorFile(path) as file:
            found = {name: entry.shape for name, entry in file.entries.items()}
        odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        if odd:
            one = odd[0]
            raise CheckpointError(
                f"{path} does not match {self.config.name} in {len(odd)} tensor(s): {one} is "
                f"{found.get(one, 'missing')}, the model has {expected.get(one, 'none of that name')}"
            )

    def identity(self) -> str:
        """The hash of the weights; raises CheckpointError where they are not those that their description states."""
        return fingerprint(verify(self.folder))

    def rank(self, placement: Placement, head_dim: int, dtype: torch.dtype) -> RankWeights:
        return TrainedRank(self.folder / WEIGHTS, self.config, placement, head_dim, dtype)


class TrainedRank(RankWeights):
    """A trained model's part of one rank, read from the file slice by slice whenever it is asked for."""

    def __init__(
        self, path: Path, config: ModelConfig, placement: Placement, head_dim: int, dtype: torch.dtype
    ) -> None:
        model = build_model(config, placement, seed=None, device="meta")
        super().__init__(config, placement, head_dim, dict(model.named_parameters()))
        self.path, self.dtype = path, dtype

    def read(self, name: str) -> Tensor:
        with TensorFile(self.path) as file:
            return self._part(name, file.entries[name])

    def blocks(self, name: str) -> Iterator[Tensor]:
        with TensorFile(self.path) as file:
            entry = file.entries[name]
            if name in REPLICATED and math.prod(entry.shape) > 0:
                for block in entry.blocks():
                    yield block.to(self.dtype)
            else:
                yield self._part(name, entry)

    def _part(self, name: str, entry: StoredTensor) -> Tensor:
        # Megatron's parts are cut from a whole matrix, read once; ways and tables are read by their own bytes
        apart = has_ways(self.config) or name in REPLICATED
        part = shard(name, entry if apart else entry[:], entry.shape, self.config, self.placement)
        return self.padded(name, part).to(self.dtype)


WeightSource = RandomSource | TrainedSource


def source_of(config: ModelConfig, weights: str, folder: Path) -> WeightSource:
    """engine.weights as a source; `folder` is that of the finished model."""
    return RandomSource(config) if weights == "random" else TrainedSource(folder, config)
