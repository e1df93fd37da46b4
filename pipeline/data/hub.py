"""Data sets of the hub, and files of their form, through `datasets`. No loading script is run."""

from pathlib import Path
from typing import Any

from pipeline.data.corpus import text_files
from pipeline.errors import DataError, MissingRequirementError

SUFFIXES = (".parquet", ".jsonl", ".json")
MEND = "or name a local copy in data.source: a folder made by save_to_disk, or of .parquet or .jsonl files"


def kept_rows(source: str) -> Any | None:
    """The rows that `datasets` keeps of an earlier load_dataset(source), or None; asks no network."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, name = source.split("/")
    if not Path(datasets.config.HF_DATASETS_CACHE, f"{owner}___{camelcase_to_snakecase(name)}").is_dir():
        return None
    try:
        return Cache(dataset_name=name, repo_id=source, version="auto", hash="auto").as_dataset(split="train")
    except Exception:  # unfinished, of several configurations, or without that split
        return None


def snapshot(source: str, revision: str | None, fetch: bool) -> list[Path] | None:
    """The .parquet files of the training split in the hub's cache, where they are fetched to if `fetch` allows.

    None where they are not here and must not be fetched. Raises MissingRequirementError where they cannot be had,
    DataError where there are none, or only a part of the data set.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            source, repo_type="dataset", revision=revision, allow_patterns="*.parquet", local_files_only=not fetch
        )
    except Exception as error:  # connection, HTTP and cache errors, by many names
        if not fetch:
            return None
        raise MissingRequirementError(
            f"data.source: {source} cannot be fetched from the hub ({first_line(error)}); "
            f"check the network, data.source and data.revision={revision}, {MEND}"
        ) from error
    folder = Path(found)
    paths = sorted(folder.rglob("*.parquet"))
    paths = [path for path in paths if "train" in str(path.relative_to(folder))] or paths
    where = f"{source} at data.revision={revision or 'main'}"
    if not paths:
        raise DataError(f"data.source: {where} has no .parquet file; its loading script cannot be run, {MEND}")
    if any("partial" in part for path in paths for part in path.relative_to(folder).parts):
        raise DataError(f"data.source: {where} holds only a part of the data set; name another revision, {MEND}")
    return paths


def data_set_files(source: Path) -> list[Path]:
    """The files of one kind that a local copy consists of; raises DataError."""
    paths = text_files(source, SUFFIXES)
    suffixes = sorted({path.suffix for path in paths})
    if ".parquet" in suffixes and len(suffixes) > 1:
        raise DataError(f"data.source: {source} mixes {' and '.join(suffixes)}; keep one kind")
    return paths


def builder(paths: list[Path]) -> Any:
    """What reads these files: it copies them as Arrow to its `cache_dir` once."""
    import datasets

    kind = "parquet" if paths[0].suffix == ".parquet" else "json"
    return datasets.load_dataset_builder(kind, data_files=[str(path) for path in paths])


def first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
