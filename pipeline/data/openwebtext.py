"""OpenWebText, or any data set of its form, through `datasets`, split exactly as nanoGPT does."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data.corpus import Document, file_signature, text_files, whole_characters
from pipeline.errors import DataError, MissingRequirementError, PipelineError
from pipeline.provenance import fingerprint

ROWS = 256  # rows fetched at once
MEND = "or name a local copy in data.source: a folder made by save_to_disk, or of .parquet or .jsonl files"


class OpenWebText:
    """Documents of the training split in its shuffled order, then those held out.

    train_test_split(test_size=val_fraction, seed=split_seed, shuffle=True), as nanoGPT's
    prepare.py. Raises DataError for a local copy that cannot be read, MissingRequirementError
    where the hub is out of reach.
    """

    def __init__(self, config: DataConfig) -> None:
        if len(config.source) != 1:
            raise DataError(f"data.source={config.source}: must be one hub id or one local folder")
        self._config = config
        self._source = config.source[0]
        self._local = Path(self._source)
        if not self._local.exists() and self._source.count("/") != 1:
            raise DataError(f"data.source: {self._source} does not exist here and is no hub id (owner/name)")

    @property
    def signature(self) -> str:
        """A local copy's files; of the hub's data set the name alone: what it holds is cached at first use."""
        if not self._local.exists():
            return fingerprint("hub", self._source)
        files = sorted(path for path in self._local.rglob("*") if path.is_file())
        return file_signature(files or [self._local])

    @property
    def total_bytes(self) -> int:
        total = int(self._rows.data.nbytes)
        return min(total, self._config.max_bytes) if self._config.max_bytes else total

    def documents(self, start: int = 0) -> Iterator[Document]:
        train, held_out = self._sizes
        share = self.total_bytes // max(1, train + held_out)
        for text in self._texts("train", start, train):
            yield Document(text, share)
        for text in self._texts("test", max(0, start - train), held_out):
            yield Document(text, share)

    def in_val(self, index: int) -> bool:
        return index >= self._sizes[0]

    def val_mask(self, documents: int) -> np.ndarray:
        return np.arange(documents) >= self._sizes[0]

    @cached_property
    def _rows(self) -> Any:
        rows = self._load_local() if self._local.exists() else self._load_hub()
        field = self._config.text_field
        if field not in rows.column_names:
            raise DataError(
                f"{self._source}: no column {field!r} ({', '.join(rows.column_names)} there); set data.text_field"
            )
        if len(rows) < 2:
            raise DataError(f"{self._source}: {len(rows)} documents; at least 2 are needed to hold one out")
        return rows.select_columns([field])

    @cached_property
    def _split(self) -> Any:
        import datasets

        config = self._config
        caching = datasets.is_caching_enabled()
        datasets.disable_caching()  # else the shuffled indices are written into the source
        try:
            return self._rows.train_test_split(test_size=config.val_fraction, seed=config.split_seed, shuffle=True)
        except ValueError as error:  # one side would be empty
            raise DataError(f"data.val_fraction={config.val_fraction}: {error}") from error
        finally:
            if caching:
                datasets.enable_caching()

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Documents read of each side; with max_bytes, each side is cut at its share."""
        sizes = len(self._split["train"]), len(self._split["test"])
        if not self._config.max_bytes:
            return sizes
        shares = 1 - self._config.val_fraction, self._config.val_fraction
        budgets = [self._config.max_bytes * share for share in shares]
        return self._within("train", sizes[0], budgets[0]), self._within("test", sizes[1], budgets[1])

    def _within(self, side: str, rows: int, budget: float) -> int:
        used = 0
        for count, text in enumerate(self._texts(side, 0, rows), 1):
            used += len(text.encode())
            if used >= budget:
                return count
        return rows

    def _texts(self, side: str, start: int, end: int) -> Iterator[str]:
        rows, field = self._split[side], self._config.text_field
        for first in range(start, end, ROWS):
            for offset, text in enumerate(rows[first : min(first + ROWS, end)][field]):
                place = f"{self._source}, row {first + offset} of {side}"
                if not isinstance(text, str):
                    raise DataError(f"{place}: {field!r} holds {type(text).__name__}, not text; set data.text_field")
                yield whole_characters(text, place)

    def _load_local(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        try:
            saved = self._local / "dataset_dict.json", self._local / "state.json"
            if any(path.exists() for path in saved):
                rows = datasets.load_from_disk(str(self._local))
            else:
                rows = _load_files(self._local)
        except PipelineError:
            raise
        except Exception as error:  # datasets wraps what its readers raise
            raise DataError(f"{self._source}: cannot be read as a data set ({_first_line(error)})") from error
        if isinstance(rows, dict):
            if "train" not in rows:
                raise DataError(f"{self._source}: no train split ({', '.join(rows)} there)")
            rows = rows["train"]
        return rows

    def _load_hub(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(self._source, split="train")
        except Exception as error:  # connection, HTTP and data set errors, by many names
            raise MissingRequirementError(
                f"data.source: {self._source} cannot be fetched from the hub ({_first_line(error)}); "
                f"check the network and the name, {MEND}"
            ) from error


def _load_files(source: Path) -> Any:
    import datasets

    paths = text_files(source, (".parquet", ".jsonl", ".json"))
    suffixes = {path.suffix for path in paths}
    if len(suffixes) > 1:
        raise DataError(f"data.source: {source} mixes {' and '.join(sorted(suffixes))}; keep one kind")
    kind = "parquet" if suffixes == {".parquet"} else "json"
    return datasets.load_dataset(kind, data_files=[str(path) for path in paths], split="train")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
