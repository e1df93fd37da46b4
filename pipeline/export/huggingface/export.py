"""engine=huggingface: a folder that transformers loads. Standard is a plain GPT-2; the others bring their code."""

import json
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.export.heads import torch_dtype
from pipeline.export.spec import EngineSpec, check_parts
from pipeline.export.tensor_file import write_tensors
from pipeline.export.weights import RankWeights, TrainedSource, WeightSource
from pipeline.models import WHOLE, local_shape
from pipeline.models.huggingface import BLOCK_NAMES
from pipeline.models.placement import head_dim

AS_GPT2 = ("standard", "standard_split")  # the same weights and logits: transformers' own GPT-2
OWN_CODE = ("kraken", "parallel", "ladder", "desync", "parallel_track")  # what modeling.py has a forward for
SHAPE_FIELDS = ("architecture", "vocab_size", "block_size", "n_embd", "n_layer", "n_head", "n_ways", "track_depth")
MODELING = "modeling_kraken.py"
TOKENIZER = "tokenizer.json"
END_OF_TEXT = "<|endoftext|>"
TABLES = ("wte.weight", "wpe.weight")
Shape = tuple[int, ...]
Blocks = Callable[[str], Iterator[Tensor]]


class HuggingFaceMaker:
    """Exports the whole model, unpadded; raises ConfigError for several ranks or an architecture not covered."""

    module = "transformers"
    target: str | None = None
    status = "tested on small models of this architecture: transformers loads the folder and gives the same logits"

    def __init__(self, spec: EngineSpec) -> None:
        if spec.tp_size != 1:
            raise ConfigError(f"engine.tp_size={spec.tp_size}: engine=huggingface holds a whole model, so 1")
        if spec.model.architecture not in (*AS_GPT2, *OWN_CODE):
            raise ConfigError(
                f"model.architecture={spec.model.architecture}: engine=huggingface exports "
                f"{', '.join((*AS_GPT2, *OWN_CODE))}; others need a forward in pipeline/export/huggingface/modeling.py"
            )
        check_parts(spec.model, spec.engine)
        self.spec = spec
        self.version = metadata.version("transformers")

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        export(self.spec, source, folder)
        return {}


def export(spec: EngineSpec, source: WeightSource, folder: Path) -> None:
    """Write config.json, model.safetensors, the tokenizer where there is one, and the code where it is needed."""
    model, dtype = spec.model, torch_dtype(spec.dtype)
    weights = source.rank(WHOLE, head_dim(model), dtype)
    end = None
    if isinstance(source, TrainedSource) and (source.folder / TOKENIZER).is_file():
        end = _copy_tokenizer(source.folder / TOKENIZER, folder, model.block_size)
    body: dict[str, Any] = {
        "dtype": spec.dtype,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": True,
        "use_cache": False,
    }
    if model.architecture in AS_GPT2:
        shapes, blocks = gpt2_tensors(spec, weights, dtype)
        body |= gpt2_config(spec)
    else:
        shapes, blocks = {name: weights.shape_of(name) for name in weights.names()}, weights.blocks
        body |= own_config(spec)
        shutil.copyfile(Path(__file__).with_name("modeling.py"), folder / MODELING)
    write_tensors(folder / "model.safetensors", shapes, dtype, blocks)
    files.write_json(folder / "config.json", body)


def gpt2_config(spec: EngineSpec) -> dict[str, Any]:
    """transformers' GPT2Config of a standard model."""
    model = spec.model
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.block_size,
        "n_embd": model.n_embd,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_inner": model.ffn_expansion * model.n_embd,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": model.layer_norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "use_cache": True,
    }


def own_config(spec: EngineSpec) -> dict[str, Any]:
    """The configuration of the modeling file in the folder."""
    model, shape = spec.model, local_shape(spec.model)
    stem = Path(MODELING).stem
    return {
        "architectures": ["KrakenForCausalLM"],
        "model_type": "kraken_pipeline",
        "auto_map": {
            "AutoConfig": f"{stem}.KrakenConfig",
            "AutoModelForCausalLM": f"{stem}.KrakenForCausalLM",
        },
        **{name: getattr(model, name) for name in SHAPE_FIELDS},
        "head_dim": shape.head_dim,
        "ffn_dim": shape.ffn_dim,
        "bias": model.bias,
        "layer_norm_eps": model.layer_norm_eps,
    }


def gpt2_tensors(spec: EngineSpec, weights: RankWeights, dtype: torch.dtype) -> tuple[dict[str, Shape], Blocks]:
    """A standard model's parameters under GPT-2's names: shapes, and blocks by name. Biases we lack are zero."""
    known = set(weights.names())
    parts = {"ln_f": "ln_f"}
    for layer in range(spec.model.n_layer):
        parts |= {f"h.{layer}.{theirs}": f"blocks.{layer}.{ours}" for theirs, ours in BLOCK_NAMES.items()}
    sources = {f"transformer.{table}": table for table in TABLES}
    for theirs, ours in parts.items():
        sources |= {f"transformer.{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}

    def shape(source: str) -> Shape:  # Conv1D keeps (in, out), as we do; without the axis of ways
        weight = weights.shape_of(source.replace("bias", "weight"))
        return weight if source in TABLES else weight[1:] if source.endswith("weight") else weight[-1:]

    shapes = {name: shape(source) for name, source in sources.items()}

    def blocks(name: str) -> Iterator[Tensor]:
        source = sources[name]
        if source not in known:
            yield torch.zeros(shapes[name], dtype=dtype)
        elif source in TABLES:
            yield from weights.blocks(source)
        else:
            yield weights.read(source)[0]

    return shapes, blocks


def _copy_tokenizer(tokenizer: Path, folder: Path, block_size: int) -> int | None:
    """Copy tokenizer.json and say how to load it; returns the id of the end-of-text token."""
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    files.write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": block_size, **special},
    )
    body = json.loads(tokenizer.read_text(encoding="utf-8"))
    found: int | None = body.get("model", {}).get("vocab", {}).get(END_OF_TEXT)
    added = [one["id"] for one in body.get("added_tokens", []) if one.get("content") == END_OF_TEXT]
    return added[0] if added else found
