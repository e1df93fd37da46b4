"""A user's own .txt, .md, .jsonl or .parquet files, streamed."""

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.data import DataConfig
from pipeline.data.corpus import PLAIN, Document, HashedSplit, file_signature, text_files, whole_characters
from pipeline.errors import DataError

PIECE = 1 << 15  # characters: plain text longer than this counts as several documents
BLOCK = 1 << 16  # bytes read at once


class LocalCorpus(HashedSplit):
    """Files in the order of data.source, those of a folder by name.

    A line of a .jsonl or a row of a .parquet is a document; plain text is cut at line ends into
    documents of at most 32 Ki characters, so that a single long file can be split and streamed.
    Raises DataError for what is missing, empty, unreadable or not UTF-8, with file and place.
    """

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        if not config.source:
            raise DataError("data.source=[]: name the files or folders to read, as 'data.source=[my/folder]'")
        self._field, self._max_bytes = config.text_field, config.max_bytes
        self._paths = [path for source in config.source for path in text_files(Path(source))]
        for path in self._paths:
            self._check(path)
        if not any(path.stat().st_size for path in self._paths):
            raise DataError(f"data.source={config.source}: the corpus is empty; every file has 0 bytes")

    @property
    def signature(self) -> str:
        return file_signature(self._paths)

    @property
    def total_bytes(self) -> int:
        total = sum(path.stat().st_size for path in self._paths)
        return min(total, self._max_bytes) if self._max_bytes else total

    @property
    def text_bytes(self) -> int:
        total = sum(text_bytes(path, self._field) for path in self._paths)
        return min(total, self._max_bytes) if self._max_bytes else total

    def documents(self, start: int = 0) -> Iterator[Document]:
        return islice(self._limited(), start, None)

    def _limited(self) -> Iterator[Document]:
        used = 0
        for path in self._paths:
            for document in self._read(path):
                if not document.text.strip():
                    continue
                yield document
                used += len(document.text.encode())
                if self._max_bytes and used >= self._max_bytes:
                    return

    def _read(self, path: Path) -> Iterator[Document]:
        try:
            if path.suffix in PLAIN:
                yield from plain_documents(path)
            elif path.suffix == ".jsonl":
                yield from jsonl_documents(path, self._field)
            else:
                yield from parquet_documents(path, self._field)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error

    def _check(self, path: Path) -> None:
        """Open each file once, before any work."""
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        if path.suffix == ".parquet":
            parquet_file(path, self._field)


def plain_documents(path: Path) -> Iterator[Document]:
    """Pieces of whole lines where lines are short enough."""
    buffer = ""
    for text in _decoded_blocks(path):
        buffer += text
        while len(buffer) > PIECE:
            cut = buffer.rfind("\n\n", PIECE // 2, PIECE) + 2
            if cut < 2:
                cut = buffer.rfind("\n", 0, PIECE) + 1 or PIECE
            yield Document(buffer[:cut], len(buffer[:cut].encode()))
            buffer = buffer[cut:]
    yield Document(buffer, len(buffer.encode()))


def _decoded_blocks(path: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            pending = len(decoder.getstate()[0])  # bytes of a character that the last block cut
            try:
                yield decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, offset - pending + error.start) from error
            if not block:
                return
            offset += len(block)


def jsonl_documents(path: Path, field: str) -> Iterator[Document]:
    """One object a line; blank lines are passed over."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                place = f"{path}, line {number} (byte offset {offset})"
                try:
                    row: Any = json.loads(line.decode("utf-8"))
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, offset + error.start) from error
                except ValueError as error:
                    raise DataError(f"{place}: not JSON: {error}") from error
                text = row.get(field) if isinstance(row, dict) else None
                if not isinstance(text, str):
                    keys = ", ".join(row) if isinstance(row, dict) else "no fields"
                    there = (
                        f"{type(text).__name__} there" if isinstance(row, dict) and field in row else f"{keys} there"
                    )
                    raise DataError(f"{place}: no text in field {field!r} ({there}); set data.text_field")
                yield Document(whole_characters(text, place), len(line))
            offset += len(line)


def parquet_documents(path: Path, field: str) -> Iterator[Document]:
    """One row a document, read in groups; empty rows are passed over."""
    file = parquet_file(path, field)
    share = path.stat().st_size // max(1, file.metadata.num_rows)
    row = 0
    for batch in file.iter_batches(batch_size=256, columns=[field]):
        try:
            texts = batch.column(0).to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, rows {row} to {row + len(batch)}: not UTF-8 at byte offset {error.start} of a text"
            ) from error
        for text in texts:
            yield Document(text or "", share)
        row += len(batch)


def text_bytes(path: Path, field: str) -> int:
    """Bytes of text in a file, of which only a .parquet's footer is read: it is compressed."""
    if path.suffix != ".parquet":
        return path.stat().st_size
    file = parquet_file(path, field)
    column = file.schema_arrow.get_field_index(field)
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    return sum(group.column(column).total_uncompressed_size for group in groups)


def parquet_file(path: Path, field: str) -> Any:
    """The opened file; raises DataError where it is damaged or has no text in `field`."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable .parquet file ({str(error).splitlines()[0]})") from error
    schema = file.schema_arrow
    if field not in schema.names:
        raise DataError(f"{path}: no column {field!r} ({', '.join(schema.names)} there); set data.text_field")
    kind = schema.field(field).type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise DataError(f"{path}: column {field!r} holds {kind}, not text; set data.text_field")
    return file


def _not_utf8(path: Path, offset: int) -> DataError:
    return DataError(f"{path}: not UTF-8 at byte offset {offset}; convert it, as with iconv -t UTF-8")
