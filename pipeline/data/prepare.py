"""From a corpus to a finished data folder: tokenizer, batches, shards, manifest.

Unfinished work lies under `runs`, keyed by configuration and source, and is taken up again by
the next run; the data folder appears whole at the end.
"""

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipeline import files
from pipeline.config.data import DataConfig
from pipeline.data import manifest as manifests
from pipeline.data import nanogpt, space
from pipeline.data.corpus import Corpus
from pipeline.data.gpt2 import load_gpt2
from pipeline.data.open import open_corpus
from pipeline.data.shards import ShardWriter, select
from pipeline.data.token_data import TokenData
from pipeline.data.tokenise import Batch, batch_path, token_dtype, tokenise
from pipeline.data.tokenizer import FILE as TOKENIZER_FILE
from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import DataError, OutputError
from pipeline.provenance import describe, fingerprint, usable_cores

TOKENIZER_TRAINING_BYTES = 100_000_000  # more text changes a BPE little and costs memory


def prepare(
    config: DataConfig,
    folder: Path,
    runs: Path,
    config_fingerprint: str,
    workers: int,
    code: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Make `folder` and return its manifest; does nothing where it is made already and whole.

    Made by other code, which `code` names by the digests of its rooms, it is made anew.
    Another process that makes the same folder is waited for.
    Raises DataError, OutputError or MissingRequirementError before or RunError during the work.
    """
    folder = folder.resolve() if folder.is_symlink() else folder
    files.check_replaceable(folder)
    for parent, setting in ((folder.parent, "paths.data"), (runs, "paths.runs")):
        files.check_writable(parent, hint=setting)
    with files.locked(folder.with_name(f".{folder.name}.lock"), math.inf, "", lambda: _say_waiting(folder)):
        remove_leftovers(folder)
        return _prepare(config, folder, runs, config_fingerprint, workers or usable_cores(), code)


def _say_waiting(folder: Path) -> None:
    print(f"{folder}: another process prepares it already; waiting until it is done", file=sys.stderr, flush=True)


def _prepare(
    config: DataConfig, folder: Path, runs: Path, config_fingerprint: str, workers: int, code: dict[str, str] | None
) -> dict[str, Any]:
    try:
        corpus = None if config.corpus == "nanogpt" else open_corpus(config, workers)
        signature = corpus.signature if corpus else nanogpt.signature(config)
    except DataError:
        found = finished(folder, config_fingerprint, None)  # finished data outlives its source
        if found is not None and config.corpus != "nanogpt":
            return found
        raise
    found = finished(folder, config_fingerprint, signature, code)
    if found is not None:
        return found
    if corpus is None:
        return nanogpt.adopt(config, folder, describe(config_fingerprint, code=code))
    work = runs / f"prepare_data-{config.name}-{fingerprint(config_fingerprint, signature, code)}"
    lacking = space.faults(config, corpus, folder, work)
    if lacking:
        raise OutputError("; ".join(lacking))
    work.mkdir(parents=True, exist_ok=True)
    tokenizer_path = work / TOKENIZER_FILE
    if not tokenizer_path.exists():
        make_tokenizer(config, corpus).save(tokenizer_path)
    batches = tokenise(corpus, tokenizer_path, work, workers)
    if batches == 0:
        raise DataError(f"data.source={config.source}: the corpus is empty; it has no document with any text")
    body = assemble(config, corpus, work, batches, folder, describe(config_fingerprint, code=code))
    shutil.rmtree(work)
    return body


def finished(
    folder: Path, config_fingerprint: str, signature: str | None, code: dict[str, str] | None = None
) -> dict[str, Any] | None:
    """The manifest of `folder` if it was made from this configuration, source and code (None: any) and is whole."""
    try:
        manifest = manifests.read(folder)
        if manifest["provenance"]["config_fingerprint"] != config_fingerprint:
            return None
        if signature is not None and manifest["source_signature"] != signature:
            return None
        if code is not None and manifest["provenance"]["code"] != code:
            return None
        return TokenData.open(folder, verify=True).manifest
    except (DataError, KeyError):
        return None


def make_tokenizer(config: DataConfig, corpus: Corpus) -> Tokenizer:
    """GPT-2's, or a BPE trained on the training documents alone."""
    if config.tokenizer == "gpt2":
        return load_gpt2(config.tokenizer_dir)
    return Tokenizer.train(_training_texts(corpus), config.tokenizer_vocab_size)


def assemble(
    config: DataConfig, corpus: Corpus, work: Path, batches: int, folder: Path, made_by: dict[str, Any]
) -> dict[str, Any]:
    """Batches to shards, tokenizer and manifest in `folder`, which appears whole."""
    tokenizer = Tokenizer.load(work / TOKENIZER_FILE)
    documents = sum(len(Batch.load(batch_path(work, index)).lengths) for index in range(batches))
    held_out = corpus.val_mask(documents)  # (documents,) bool
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        limits = (config.shard_tokens, tokenizer.vocab_size)
        with ShardWriter(temporary, "train", *limits) as train, ShardWriter(temporary, "val", *limits) as val:
            first = 0
            for index in range(batches):
                batch = Batch.load(batch_path(work, index))
                mask = held_out[first : first + len(batch.lengths)]
                train.write(select(batch, ~mask))
                val.write(select(batch, mask))
                first += len(batch.lengths)
        tokenizer_path = temporary / TOKENIZER_FILE
        shutil.copyfile(work / TOKENIZER_FILE, tokenizer_path)
        body = manifests.build(
            config,
            [*train.shards, *val.shards],
            tokenizer,
            tokenizer_path,
            corpus.signature,
            token_dtype(tokenizer.vocab_size).name,
            {"train": train.counts, "val": val.counts},
        )
        body["provenance"] = made_by
        files.write_json(temporary / manifests.FILE, body)
    return body


def remove_leftovers(folder: Path) -> None:
    """Remove half-written folders of runs that were killed while they assembled `folder`."""
    for path in folder.parent.glob(f".{folder.name}.*.tmp"):
        process = path.name.removesuffix(".tmp").rpartition(".")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _training_texts(corpus: Corpus) -> Iterator[str]:
    size = 0
    for index, document in enumerate(corpus.documents()):
        if corpus.in_val(index):
            continue
        yield document.text
        size += len(document.text)
        if size >= TOKENIZER_TRAINING_BYTES:
            return
