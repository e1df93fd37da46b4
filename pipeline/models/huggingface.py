"""GPT-2 checkpoints in Hugging Face form, read into the standard model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline import files
from pipeline.config.model import ModelConfig
from pipeline.errors import CheckpointError
from pipeline.models.build import build_model
from pipeline.models.checkpoint import check_same_weights
from pipeline.models.transformer import Transformer

# their name in a block -> ours; Conv1D weights are (in, out), as ours are
BLOCK_NAMES = {
    "ln_1": "ln_1",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.out",
    "ln_2": "ln_2",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}
IGNORED = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)|lm_head\.weight")  # masks, and the tied head


def read_config(folder: Path, name: str) -> ModelConfig:
    """The ModelConfig of a GPT-2's config.json; raises CheckpointError for other architectures."""
    try:
        body: dict[str, Any] = files.read_json(folder / "config.json")
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read: {error}") from None
    if body.get("model_type") != "gpt2":
        raise CheckpointError(f"{folder} is a {body.get('model_type')} model; only gpt2 loads into the standard model")
    activation = body.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise CheckpointError(f"{folder}: activation_function={activation}; the standard model has gelu_new")
    if not body.get("tie_word_embeddings", True):
        raise CheckpointError(f"{folder}: tie_word_embeddings=false; only a tied head loads into the standard model")
    inner = body.get("n_inner") or 4 * body["n_embd"]
    if inner % body["n_embd"]:
        raise CheckpointError(f"{folder}: n_inner={inner} is no multiple of n_embd={body['n_embd']}")
    return ModelConfig(
        name=name,
        architecture="standard",
        n_layer=body["n_layer"],
        n_head=body["n_head"],
        n_embd=body["n_embd"],
        block_size=body["n_positions"],
        vocab_size=body["vocab_size"],
        ffn_expansion=inner // body["n_embd"],
        bias=True,
        layer_norm_eps=body.get("layer_norm_epsilon", 1e-5),
    )


def load_huggingface(folder: Path, expected: ModelConfig | None = None) -> Transformer:
    """A GPT-2 folder as a standard model, float32. Safetensors only: nothing is unpickled.

    Raises CheckpointError where it is no GPT-2, not the `expected` shape, or tensors do not fit.
    """
    config = read_config(folder, expected.name if expected else folder.name)
    if expected is not None:
        check_same_weights(folder, config, expected)
    model = build_model(config, seed=None)
    wanted = dict(model.named_parameters())
    found = set()
    with torch.no_grad():
        for theirs, tensor in _tensors(folder):
            ours = translate(theirs)
            if ours is None:
                continue
            if ours not in wanted:
                raise CheckpointError(f"{folder}: {theirs} belongs to no GPT-2 of this shape")
            target = wanted[ours]
            if tensor.numel() != target.numel():
                raise CheckpointError(f"{folder}: {theirs} has shape {tuple(tensor.shape)}, not {tuple(target.shape)}")
            target.copy_(tensor.reshape(target.shape))
            found.add(ours)
    missing = sorted(set(wanted) - found)
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing[:4])}")
    return model


def translate(name: str) -> str | None:
    """Our name of one of their tensors; None for masks and the tied head."""
    name = name.removeprefix("transformer.")
    if IGNORED.fullmatch(name):
        return None
    match = re.fullmatch(r"h\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        return name  # wte, wpe, ln_f
    layer, part, kind = match.groups()
    return f"blocks.{layer}.{BLOCK_NAMES.get(part, part)}.{kind}"


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the folder's safetensors files, one in memory at a time."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} has no .safetensors file (pickled weights are not read)")
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # no mapping: it has keys() alone
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None
