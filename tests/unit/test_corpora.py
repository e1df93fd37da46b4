"""Corpora: what they read, in which order, and what they say about text that cannot be read."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.data import DataConfig
from pipeline.data.local import PIECE, LocalCorpus, plain_documents
from pipeline.data.open import open_corpus
from pipeline.errors import DataError


def config(corpus: str, source: list[Any], **more: Any) -> DataConfig:
    values = {"name": "test", "corpus": corpus, "source": [str(item) for item in source], **more}
    return DataConfig.model_validate(values)


def texts(settings: DataConfig) -> list[str]:
    return [document.text for document in open_corpus(settings).documents()]


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("plain text, é\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 2}\n')
    pq.write_table(pa.table({"text": ["three", None, "four"]}), tmp_path / "c.parquet")
    (tmp_path / "ignored.csv").write_text("x")
    assert texts(config("local", [tmp_path])) == ["one", "two", "plain text, é\n", "three", "four"]
    assert texts(config("local", [tmp_path / "c.parquet", tmp_path / "b.txt"])) == ["three", "four", "plain text, é\n"]


def test_starting_at_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(50)))
    corpus = LocalCorpus(config("local", [tmp_path]))
    whole = list(corpus.documents())
    assert list(corpus.documents(17)) == whole[17:]
    assert sum(document.read_bytes for document in whole) == corpus.total_bytes


def test_max_bytes_ends_reading(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "x" * 100}) + "\n" for _ in range(50)))
    assert len(texts(config("local", [tmp_path], max_bytes=950))) == 10


def test_long_text_is_cut_at_line_ends_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    original = "".join(f"line {n} é 東\n" + "\n" * (n % 9 == 0) for n in range(20_000)) + "z" * (3 * PIECE)
    path.write_text(original)
    pieces = [document.text for document in plain_documents(path)]
    assert "".join(pieces) == original
    assert all(len(piece) <= PIECE for piece in pieces)
    assert all(piece.endswith("\n") for piece in pieces if "line" in piece and "zz" not in piece)


def test_long_text_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a line of text\n" * 1_000_000)  # 15 MB
    tracemalloc.start()
    count = sum(1 for _ in plain_documents(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count > 400
    assert peak < 2_000_000


@pytest.mark.parametrize("offset", [0, 10, 65_535, 65_536, 70_001])
def test_text_that_is_not_utf8_is_named_with_its_byte(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"a" * offset + b"\xe9 caf\xe9" + b"b" * 10)
    with pytest.raises(DataError, match=rf"latin\.txt: not UTF-8 at byte offset {offset};"):
        texts(config("local", [path]))


def test_a_character_across_two_blocks_is_whole_and_a_cut_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edge.txt"
    path.write_bytes(b"a" * 65_535 + "東".encode() + b"b")
    assert "".join(texts(config("local", [path])))[-2:] == "東b"
    path.write_bytes(b"a" * 65_535 + "東".encode()[:2])
    with pytest.raises(DataError, match="byte offset 65535"):
        texts(config("local", [path]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "ok"}\n{"text": "caf\xe9"}\n', r"a\.jsonl: not UTF-8 at byte offset 28"),
        (b'{"text": "ok"}\n{"text": \n', r"a\.jsonl, line 2 \(byte offset 15\): not JSON"),
        (b'{"body": "ok"}\n', r"line 1 .*no text in field 'text' \(body there\); set data\.text_field"),
        (b'{"text": 3}\n', r"line 1 .*no text in field 'text' \(int there\)"),
        (b'["text"]\n', r"no text in field 'text' \(no fields there\)"),
        (b'{"text": "\\ud800"}\n', r"line 1 .*half a surrogate pair"),
        (b"", r"the corpus is empty; every file has 0 bytes"),
    ],
)
def test_bad_jsonl(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        texts(config("local", [tmp_path]))


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable \.parquet file"):
        open_corpus(config("local", [path]))
    pq.write_table(pa.table({"text": [1, 2], "body": ["x", "y"]}), path)
    with pytest.raises(DataError, match="column 'text' holds int64, not text"):
        open_corpus(config("local", [path]))
    with pytest.raises(DataError, match=r"no column 'story' \(text, body there\)"):
        open_corpus(config("local", [path], text_field="story"))
    raw = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": raw}), path)
    with pytest.raises(DataError, match=r"a\.parquet, rows 0 to 2: not UTF-8 at byte offset 3"):
        texts(config("local", [path]))


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    for source, message in [
        ([], r"data\.source=\[\]: name the files"),
        ([tmp_path / "absent"], "absent does not exist"),
        ([tmp_path], "has no file that ends in"),
        ([tmp_path / "a.csv"], "is not a file that ends in"),
    ]:
        with pytest.raises(DataError, match=message):
            open_corpus(config("local", source))
    with pytest.raises(DataError, match="no installed package 'numpi'"):
        open_corpus(config("demo", ["numpi"]))


def test_signature_changes_with_the_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    before = LocalCorpus(config("local", [path])).signature
    assert LocalCorpus(config("local", [path])).signature == before
    path.write_text("other text")
    assert LocalCorpus(config("local", [path])).signature != before


def test_demo_is_english_in_a_fixed_order_within_its_bytes() -> None:
    settings = config("demo", ["pydantic", "tqdm"], max_bytes=700_000)
    found = texts(settings)
    assert found == texts(settings)
    assert len(found) > 80
    assert 520_000 < sum(len(text.encode()) for text in found) <= 700_000
    words = " ".join(found).split()
    assert 0.02 < words.count("the") / len(words) < 0.1


def test_demo_reads_documentation_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "explosive"
    package.mkdir()
    prose = "Some words on what this module does. " * 10
    (package / "__init__.py").write_text(f'"""{prose}"""\nraise RuntimeError("imported")\n')
    (package / "broken.py").write_text('"""x"""\ndef (')
    (package / "more.py").write_text(f'def f():\n    """{prose}"""\n\nclass A:\n    """{prose[::-1]}"""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    found = "\n\n".join(texts(config("demo", ["explosive"])))
    assert found.count(prose.strip()) == 1  # the second time it is left out
    assert found.count(prose[::-1].strip()) == 1
