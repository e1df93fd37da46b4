"""OpenWebText, or any data set of its form, through `datasets`, split exactly as nanoGPT does."""

import contextlib
import errno
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.data import DataConfig
from pipeline.data import hub
from pipeline.data.corpus import Document, file_signature, whole_characters
from pipeline.data.local import text_bytes
from pipeline.errors import DataError, OutputError
from pipeline.provenance import fingerprint

ROWS = 256  # rows fetched at once
OPENWEBTEXT = "Skylion007/openwebtext"
OPENWEBTEXT_BYTES = 39_769_491_688  # of its text: an estimate for disk space, not checked here
OPENWEBTEXT_PARQUET_BYTES = 24_200_000_000  # of its files, about


class OpenWebText:
    """Documents of the training split in its shuffled order, then those held out.

    train_test_split(test_size=val_fraction, seed=split_seed, shuffle=True), as nanoGPT's
    prepare.py. A copy on this disk is preferred to the hub: as named, as `datasets` keeps it, as .parquet files in
    the hub's cache. Raises DataError for a copy that cannot be read, MissingRequirementError where the hub is out of
    reach.
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
            return fingerprint("hub", self._source, self._config.revision)
        files = sorted(path for path in self._local.rglob("*") if path.is_file())
        return file_signature(files or [self._local])

    def is_here(self) -> bool:
        """Whether nothing has to be fetched."""
        return self._local.exists() or self._kept is not None or self._files is not None

    @property
    def text_bytes(self) -> int:
        limit, total = self._config.max_bytes, self._whole_bytes
        return min(total, limit) if limit else total

    @property
    def copies(self) -> dict[Path, int]:
        """Files are copied as Arrow to where `datasets` keeps what it has read; what is fetched, to the hub's cache."""
        import datasets
        from huggingface_hub import constants

        if self._kept is not None or (self._files and Path(hub.builder(self._files).cache_dir).is_dir()):
            return {}
        found = {Path(datasets.config.HF_DATASETS_CACHE): self._whole_bytes}
        if not self.is_here() and self._source == OPENWEBTEXT:
            found[Path(constants.HF_HUB_CACHE)] = OPENWEBTEXT_PARQUET_BYTES
        return found

    @cached_property
    def _whole_bytes(self) -> int:
        """Bytes of all text; of what is not here they are known of OpenWebText alone (0: unknown)."""
        if self._kept is not None:
            return int(self._kept.data.nbytes)
        if self._files is not None:
            return sum(text_bytes(path, self._config.text_field) for path in self._files)
        return OPENWEBTEXT_BYTES if self._source == OPENWEBTEXT else 0

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
    def _kept(self) -> Any:
        """Rows that lie here as Arrow: saved with save_to_disk, or kept by `datasets`; None where there are none."""
        if not self._local.exists():
            return hub.kept_rows(self._source)
        if not any((self._local / name).exists() for name in ("dataset_dict.json", "state.json")):
            return None
        import datasets

        with self._readable():
            rows = datasets.load_from_disk(str(self._local))
        if isinstance(rows, dict):
            if "train" not in rows:
                raise DataError(f"{self._source}: no train split ({', '.join(rows)} there)")
            rows = rows["train"]
        return rows

    @cached_property
    def _files(self) -> list[Path] | None:
        """Files that are here; None where rows are kept as Arrow, and for what is to be fetched."""
        if self._kept is not None:
            return None
        if self._local.exists():
            return hub.data_set_files(self._local)
        return hub.snapshot(self._source, self._config.revision, fetch=False)

    @cached_property
    def _rows(self) -> Any:
        rows = self._kept if self._kept is not None else self._read_files()
        field = self._config.text_field
        if field not in rows.column_names:
            raise DataError(
                f"{self._source}: no column {field!r} ({', '.join(rows.column_names)} there); set data.text_field"
            )
        if len(rows) < 2:
            raise DataError(f"{self._source}: {len(rows)} documents; at least 2 are needed to hold one out")
        return rows.select_columns([field])

    def _read_files(self) -> Any:
        import datasets

        datasets.disable_progress_bars()
        paths = self._files or hub.snapshot(self._source, self._config.revision, fetch=True)
        assert paths is not None
        with self._readable():
            reader = hub.builder(paths)
            reader.download_and_prepare()
            return reader.as_dataset(split="train")

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """What `datasets` raises, by many names, as DataError."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(f"data.source: {self._source} cannot be copied: {error.strerror}") from error
            raise DataError(f"{self._source}: cannot be read as a data set ({hub.first_line(error)})") from error
        except Exception as error:
            raise DataError(f"{self._source}: cannot be read as a data set ({hub.first_line(error)})") from error

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
