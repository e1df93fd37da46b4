"""Which weights are scored: a trained model of the pipeline, or a GPT-2 in Hugging Face's form."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.config import Config, ModelConfig
from pipeline.data import Tokenizer, load_tokenizer
from pipeline.errors import CheckpointError, DataError, MissingRequirementError, PipelineError
from pipeline.models import WHOLE, Placement, Transformer, build_model, huggingface, shard_state
from pipeline.models.checkpoint import check_same_weights, load_model, read_config

HUB_OWNER = "openai-community"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt")
WANTED = ["config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"]


@dataclass(frozen=True)
class ModelSource:
    """A model on disk; picklable, so that ranks can load their parts."""

    folder: Path
    config: ModelConfig
    is_huggingface: bool = False

    def load(self, placement: Placement = WHOLE, device: str = "cpu") -> Transformer:
        """The model in float32, or one rank's part; raises CheckpointError for another or a damaged one."""
        if not self.is_huggingface:
            return load_model(self.folder, self.config, placement, device)
        whole = huggingface.load_huggingface(self.folder, self.config)
        if placement == WHOLE:
            return whole.to(device)
        part = build_model(self.config, placement, seed=None, device=device)
        part.load_state_dict(shard_state(whole.state_dict(), self.config, placement))
        return part

    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights; raises DataError where there is none."""
        if not self.is_huggingface or (self.folder / "tokenizer.json").is_file():
            return load_tokenizer(self.folder)
        vocab, merges = self.folder / "vocab.json", self.folder / "merges.txt"
        try:
            entries: dict[str, int] = json.loads(vocab.read_text(encoding="utf-8"))
            lines = merges.read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.folder}: no tokenizer.json, nor vocab.json and merges.txt ({error})") from error
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        return Tokenizer.from_bpe(entries, [(pair[0], pair[1]) for pair in pairs if len(pair) == 2])

    def key(self) -> str:
        """SHA-256 over the weights and the tokenizer: equal only for the same model."""
        digest = hashlib.sha256()
        weights = sorted(path.name for path in self.folder.glob("*.safetensors"))
        for name in (*weights, "config.json", *TOKENIZER_FILES):
            if (self.folder / name).is_file():
                digest.update(f"{name} {files.sha256_of(self.folder / name)}\n".encode())
        return digest.hexdigest()


def find_source(config: Config, trained: Path) -> ModelSource:
    """The model that this configuration scores: the one in the folder `trained`, or a public checkpoint.

    Raises CheckpointError where it is not trained yet or another one, MissingRequirementError where a
    public checkpoint is wanted and is neither here nor to be had.
    """
    wanted = config.evaluation.checkpoint
    if wanted is None:
        check_same_weights(trained, read_config(trained), config.model)  # says so where nothing is trained
        return ModelSource(trained, config.model)
    folder = _checkpoint_folder(wanted, config)
    check_same_weights(folder, huggingface.read_config(folder, config.model.name), config.model)
    return ModelSource(folder, config.model, is_huggingface=True)


def checkpoint_name(model: str) -> str:
    """The public checkpoint's name: gpt2_medium is gpt2-medium."""
    return model.replace("_", "-")


def missing_checkpoints(configs: Sequence[Config], online: Callable[[], bool]) -> list[str]:
    """What is lacking for configurations that score Hugging Face checkpoints, without fetching anything."""
    missing: list[str] = []
    for config in configs:
        wanted = config.evaluation.checkpoint
        if wanted is None:
            continue
        try:
            if _local_checkpoint(wanted, config) is None:
                missing.append(_hub_id(wanted, config))
        except PipelineError as error:
            return [str(error)]
    if not missing or online():
        return []
    return [f"{', '.join(missing)}: not on this disk, and the hub cannot be reached. {_what_to_fetch(configs[0])}"]


def _checkpoint_folder(wanted: str, config: Config) -> Path:
    local = _local_checkpoint(wanted, config)
    if local is not None:
        return local
    hub_id = _hub_id(wanted, config)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(hub_id, allow_patterns=WANTED, etag_timeout=5))
    except Exception as error:  # the hub's client raises many kinds
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise MissingRequirementError(
            f"{hub_id} is neither in the local cache nor to be had from the hub{offline}: {type(error).__name__}. "
            + _what_to_fetch(config)
        ) from error


def _local_checkpoint(wanted: str, config: Config) -> Path | None:
    """The folder on this disk, None where the hub must be asked; raises where a folder is named and does not serve."""
    name = checkpoint_name(config.model.name)
    for folder in (Path(wanted) / name, Path(wanted)):
        if (folder / "config.json").is_file():
            if not any(folder.glob("*.safetensors")):
                raise CheckpointError(f"{folder}: config.json is there, the weights (model.safetensors) are not")
            return folder
    if Path(wanted).is_dir():
        raise MissingRequirementError(
            f"evaluation.checkpoint={wanted}: neither it nor {Path(wanted) / name} holds a Hugging Face GPT-2. "
            + _what_to_fetch(config)
        )
    if wanted != "hub" and (wanted.count("/") != 1 or wanted.startswith((".", "/"))):
        raise MissingRequirementError(f"evaluation.checkpoint={wanted}: no such folder. " + _what_to_fetch(config))
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(_hub_id(wanted, config), "model.safetensors")
    return Path(cached).parent if isinstance(cached, str) else None


def _hub_id(wanted: str, config: Config) -> str:
    return f"{HUB_OWNER}/{checkpoint_name(config.model.name)}" if wanted == "hub" else wanted


def _what_to_fetch(config: Config) -> str:
    models = config.experiment.models[config.scale.name] if config.experiment else [config.model.name]
    names = [checkpoint_name(model) for model in models]
    fetch = "\n".join(f"      hf download {HUB_OWNER}/{name} --local-dir checkpoints/{name}" for name in names)
    return (
        f"Fetch where there is a network, and copy here:\n{fetch}\n"
        "    then add evaluation.checkpoint=checkpoints (each folder holds config.json, model.safetensors and "
        "tokenizer.json)"
    )
