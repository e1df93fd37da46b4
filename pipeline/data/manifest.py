"""The manifest: what a folder of token shards says about itself."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.config.data import DataConfig
from pipeline.data.tokenizer import FILE as TOKENIZER_FILE
from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import DataError

FILE = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val")


def build(
    config: DataConfig,
    shards: list[dict[str, Any]],
    tokenizer: Tokenizer,
    tokenizer_path: Path,
    signature: str,
    dtype: str,
    counts: dict[str, np.ndarray],
) -> dict[str, Any]:
    """The manifest's body without provenance. `counts` is the number of each token id per split, (vocab_size,)."""
    splits = {name: _totals([shard for shard in shards if shard["split"] == name]) for name in SPLITS}
    total = _totals(shards)
    return {
        "format": FORMAT,
        "name": config.name,
        "corpus": config.corpus,
        "source_signature": signature,
        "dtype": dtype,
        **total,
        "bytes_per_token": total["text_bytes"] / total["tokens"],
        "unigram_loss_nats": unigram_loss(counts["train"], counts["val"]),
        "splits": splits,
        "tokenizer": {
            "name": config.tokenizer,
            "file": TOKENIZER_FILE,
            "vocab_size": tokenizer.vocab_size,
            "eot_token": tokenizer.eot_token,
            "sha256": files.sha256_of(tokenizer_path),
        },
        "shards": shards,
    }


def unigram_loss(train: np.ndarray, val: np.ndarray) -> float:
    """Cross entropy in nats on val of the add-one smoothed unigram model of train; counts are (vocab_size,)."""
    log_probability = np.log((train + 1) / (train.sum() + len(train)))
    return float(-(val * log_probability).sum() / val.sum())


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a data folder; raises DataError where it is missing or not one."""
    path = folder / FILE
    try:
        manifest = files.read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no token data there (no {FILE}); python -m stages.prepare_data makes it") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the data again") from error
    needed = {"dtype", "shards", "splits", "tokenizer"}
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not needed <= manifest.keys():
        raise DataError(f"{path}: not a manifest of format {FORMAT}; prepare the data again")
    return manifest


def _totals(shards: list[dict[str, Any]]) -> dict[str, int]:
    return {key: sum(shard[key] for shard in shards) for key in ("tokens", "documents", "text_bytes")}
