"""nanoGPT's train.bin and val.bin, used where they lie: only a manifest and the tokenizer are written."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.config.data import DataConfig
from pipeline.data import manifest as manifests
from pipeline.data.corpus import file_signature
from pipeline.data.gpt2 import load_gpt2
from pipeline.data.tokenizer import FILE as TOKENIZER_FILE
from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import DataError

BLOCK = 1 << 24  # bytes read at once


def source_files(config: DataConfig) -> dict[str, Path]:
    """train.bin and val.bin of the folder in data.source; raises DataError where they are missing."""
    if len(config.source) != 1:
        raise DataError(f"data.source={config.source}: must be one folder with train.bin and val.bin")
    if config.tokenizer != "gpt2":
        raise DataError(f"data.tokenizer={config.tokenizer}: nanoGPT's files are GPT-2 tokens; gpt2 would be right")
    folder = Path(config.source[0]).resolve()
    paths = {split: folder / f"{split}.bin" for split in manifests.SPLITS}
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{path}: missing; data.source must be a folder with nanoGPT's train.bin and val.bin")
        size = path.stat().st_size
        if size == 0 or size % 2:
            raise DataError(f"{path}: {size} bytes; must be a whole number of uint16 tokens, and not empty")
    return paths


def signature(config: DataConfig) -> str:
    return file_signature(list(source_files(config).values()))


def adopt(config: DataConfig, folder: Path, made_by: dict[str, Any]) -> dict[str, Any]:
    """Write manifest and tokenizer to `folder`, the shards named by their absolute paths; returns the manifest.

    Bytes of text are the sum of the tokens' own bytes, documents the end-of-text tokens. Raises
    DataError for a token beyond GPT-2's vocabulary.
    """
    paths = source_files(config)
    tokenizer = load_gpt2(config.tokenizer_dir)
    shards, counts = [], {}
    for split, path in paths.items():
        shard, counts[split] = _describe_shard(split, path, tokenizer)
        shards.append(shard)
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        tokenizer_path = temporary / TOKENIZER_FILE
        tokenizer.save(tokenizer_path)
        body = manifests.build(config, shards, tokenizer, tokenizer_path, signature(config), "uint16", counts)
        body["provenance"] = made_by
        files.write_json(temporary / manifests.FILE, body)
    return body


def _describe_shard(split: str, path: Path, tokenizer: Tokenizer) -> tuple[dict[str, Any], np.ndarray]:
    """The manifest's entry of one file, and its token counts (vocab_size,); reads it once."""
    counts = np.zeros(2**16, dtype=np.int64)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            counts += np.bincount(np.frombuffer(block, dtype="<u2"), minlength=2**16)
    highest = int(counts.nonzero()[0].max())
    if highest >= tokenizer.vocab_size:
        raise DataError(
            f"{path}: holds token {highest}, GPT-2 has {tokenizer.vocab_size} entries; "
            "only files that nanoGPT made with GPT-2's tokenizer can be used"
        )
    counts = counts[: tokenizer.vocab_size]
    sizes = np.fromiter(tokenizer.token_bytes(), dtype=np.int64, count=tokenizer.vocab_size)
    return {
        "file": str(path),
        "split": split,
        "tokens": int(counts.sum()),
        "documents": int(counts[tokenizer.eot_token]),
        "text_bytes": int((counts * sizes).sum()),
        "sha256": digest.hexdigest(),
    }, counts
