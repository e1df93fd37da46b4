"""A finished model on disk: model.safetensors, config.json and, where there is one, tokenizer.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import files
from pipeline.config.model import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.models.build import build_model
from pipeline.models.placement import WHOLE, Placement, weights_identity
from pipeline.models.shard import shard
from pipeline.models.transformer import Transformer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save_model(folder: Path, model: Transformer, details: dict[str, Any] | None = None) -> None:
    """Write a whole model to `folder`, atomically per file; `details` is kept in config.json.

    It states the weights' hash too, by which others know the model without reading it.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with files.atomic_path(folder / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    path = folder / WEIGHTS
    weights = {"file": WEIGHTS, "sha256": files.sha256_of(path), "bytes": path.stat().st_size}
    body = {"model": model.config.model_dump(mode="json"), "weights": weights, **(details or {})}
    files.write_json(folder / CONFIG, body)


def read_details(folder: Path) -> dict[str, Any]:
    """config.json of a finished model; raises CheckpointError where it is missing or no JSON."""
    try:
        details = files.read_json(folder / CONFIG)
        ModelConfig.model_validate(details["model"])
    except FileNotFoundError:
        others = ", ".join(one.name for one in files.variants(folder))
        there = f" with the same overrides; there are: {others}" if others else ""
        train = f"python -m stages.train model={files.plain_name(folder.name)}"
        raise CheckpointError(f"no trained model in {folder}: train it first, as {train}{there}") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} is not a model's description: {error}") from None
    return dict(details)


def read_config(folder: Path) -> ModelConfig:
    """The ModelConfig of a finished model."""
    return ModelConfig.model_validate(read_details(folder)["model"])


def load_model(
    folder: Path,
    expected: ModelConfig | None = None,
    placement: Placement = WHOLE,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """A finished model, or one rank's part of it read slice by slice.

    Raises CheckpointError when `folder` holds another model than `expected`, or damaged files. Rank 0 verifies the
    weights' hash for all ranks, which read parts of one file.
    """
    config = read_config(folder)
    if expected is not None:
        check_same_weights(folder, config, expected)
    if placement.rank == 0:
        verify(folder)
    model = build_model(expected or config, placement, seed=None, device=device, dtype=dtype)  # on its own schedule
    with torch.no_grad():
        for name, tensor in read_weights(folder, config, placement, model):
            model.get_parameter(name).copy_(tensor)
    return model


def verify(folder: Path) -> str:
    """SHA-256 of the weights, read once; raises CheckpointError where they are not those that config.json states."""
    path = folder / WEIGHTS
    try:
        stated = read_details(folder)["weights"]["sha256"]
        found = files.sha256_of(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: train the model again") from None
    except (KeyError, TypeError):
        raise CheckpointError(f"{folder / CONFIG} does not state its weights' hash: train the model again") from None
    if found != stated:
        raise CheckpointError(
            f"{path} is damaged: its SHA-256 is {found[:12]}, {CONFIG} states {str(stated)[:12]}: train the model again"
        )
    return found


def read_weights(
    folder: Path, config: ModelConfig, placement: Placement, model: Transformer
) -> Iterator[tuple[str, Tensor]]:
    """Stream (name, tensor) of one rank's part, one tensor in memory at a time.

    `model` (on meta will do) says which names and shapes to expect.
    """
    path = folder / WEIGHTS
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    try:
        with safe_open(path, framework="pt") as file:
            odd = sorted(set(file.keys()) ^ set(expected))[:4]
            if odd:
                raise CheckpointError(f"{path} is of another model: these tensors do not match: {', '.join(odd)}")
            for name, shape in expected.items():
                source = file.get_slice(name)
                part = shard(name, source, tuple(source.get_shape()), config, placement)
                if tuple(part.shape) != shape:
                    raise CheckpointError(f"{path}: {name} has shape {tuple(part.shape)}, the model needs {shape}")
                yield name, part
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def check_same_weights(folder: Path, found: ModelConfig, wanted: ModelConfig) -> None:
    """Raise CheckpointError, naming every difference, where weights of `found` cannot serve `wanted`."""
    theirs, ours = weights_identity(found), weights_identity(wanted)
    odd = [f"{key}={theirs[key]} (wanted {ours[key]})" for key in ours if theirs[key] != ours[key]]
    if odd:
        raise CheckpointError(f"{folder} holds another model than {wanted.name}: {', '.join(odd)}")
