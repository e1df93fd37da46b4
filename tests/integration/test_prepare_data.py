"""Text to shards for real: every corpus, a kill and its continuation, damage, and what is refused beforehand."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.config.data import DataConfig
from pipeline.data import TokenData, load_tokenizer
from pipeline.data import tokenise as tokenising
from pipeline.data.corpus import Document, HashedSplit
from pipeline.data.prepare import prepare
from pipeline.errors import DataError, OutputError

GPT2 = Path("../shared/gpt2")
KEY = "0123456789ab"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason=f"no GPT-2 vocabulary in {GPT2}")


def story(number: int) -> str:
    return f"Story {number}: " + " ".join(f"the {(number * k) % 97} birds of é{k}" for k in range(3 + number % 40))


def settings(corpus: str, source: Path | str, **more: Any) -> DataConfig:
    values = {
        "name": "test",
        "corpus": corpus,
        "source": [str(source)],
        "tokenizer": "bpe",
        "tokenizer_vocab_size": 500,
        "val_fraction": 0.1,
        **more,
    }
    if values["tokenizer"] == "gpt2":
        values |= {"tokenizer_vocab_size": 50257, "tokenizer_dir": str(GPT2)}
    return DataConfig.model_validate(values)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": story(n)}) + "\n" for n in range(300)))
    return folder


def make(config: DataConfig, tmp_path: Path, workers: int = 1, key: str = KEY) -> dict[str, Any]:
    return prepare(config, tmp_path / "data" / "test", tmp_path / "runs", key, workers)


def documents_of(folder: Path, split: str) -> list[str]:
    data, tokenizer = TokenData.open(folder), load_tokenizer(folder)
    part = getattr(data, split)
    tokens = part.read(0, part.tokens)
    ends = np.flatnonzero(tokens == tokenizer.eot_token)
    assert ends[-1] == len(tokens) - 1
    return [tokenizer.decode(tokens[begin:end]) for begin, end in zip([0, *(ends[:-1] + 1)], ends, strict=True)]


def test_local_text_comes_back_from_its_shards(source: Path, tmp_path: Path) -> None:
    manifest = make(settings("local", source, shard_tokens=4000), tmp_path)
    folder = tmp_path / "data" / "test"
    train, val = documents_of(folder, "train"), documents_of(folder, "val")
    everything = [story(n) for n in range(300)]
    assert sorted(train + val) == sorted(everything)
    assert train == [text for text in everything if text not in set(val)]  # order kept
    assert 15 <= len(val) <= 50

    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert manifest["provenance"]["config_fingerprint"] == KEY
    assert manifest["splits"]["val"]["documents"] == len(val)
    assert manifest["text_bytes"] == sum(len(text.encode()) for text in everything)
    assert manifest["bytes_per_token"] == pytest.approx(manifest["text_bytes"] / manifest["tokens"])
    shards = [shard for shard in manifest["shards"] if shard["split"] == "train"]
    assert len(shards) > 2
    assert all(shard["tokens"] <= 4000 for shard in shards)
    assert sum(shard["documents"] for shard in shards) == len(train)
    assert not list((tmp_path / "runs").iterdir())  # finished work leaves nothing behind


def test_unigram_loss_is_that_of_counting_by_hand(source: Path, tmp_path: Path) -> None:
    manifest = make(settings("local", source), tmp_path)
    data = TokenData.open(tmp_path / "data" / "test")
    train, val = data.train.read(0, data.train.tokens).tolist(), data.val.read(0, data.val.tokens).tolist()
    size = manifest["tokenizer"]["vocab_size"]
    loss = -sum(np.log((train.count(token) + 1) / (len(train) + size)) for token in val) / len(val)
    assert manifest["unigram_loss_nats"] == pytest.approx(loss, rel=1e-9)


def test_workers_and_batches_change_no_byte(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(settings("local", source), tmp_path / "one")
    monkeypatch.setattr(tokenising, "BATCH_BYTES", 5000)
    two = make(settings("local", source), tmp_path / "two", workers=2)
    assert one["shards"] == two["shards"]
    assert one["tokenizer"] == two["tokenizer"]


def test_finished_data_is_left_and_other_settings_or_text_make_it_anew(source: Path, tmp_path: Path) -> None:
    config, folder = settings("local", source), tmp_path / "data" / "test"
    first = make(config, tmp_path)
    before = folder.stat().st_ino
    assert make(config, tmp_path) == first
    assert folder.stat().st_ino == before
    (folder / "val-00000.bin").write_bytes(b"\0" * 10)  # damaged: made again
    assert make(config, tmp_path)["shards"] == first["shards"]
    assert folder.stat().st_ino != before
    assert make(config, tmp_path, key="ba9876543210")["provenance"]["config_fingerprint"] == "ba9876543210"
    with (source / "a.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    assert make(config, tmp_path, key="ba9876543210")["documents"] == 301
    shutil.rmtree(source)
    assert make(config, tmp_path, key="ba9876543210")["documents"] == 301  # outlives its source
    with pytest.raises(DataError, match="does not exist"):
        make(config, tmp_path)


def test_damaged_shards_are_named(source: Path, tmp_path: Path) -> None:
    make(settings("local", source), tmp_path)
    folder = tmp_path / "data" / "test"
    shard = folder / "train-00000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"train-00000\.bin: truncated"):
        TokenData.open(folder, verify=False)
    shard.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with pytest.raises(DataError, match=r"train-00000\.bin: altered"):
        TokenData.open(folder)
    shard.unlink()
    with pytest.raises(DataError, match=r"train-00000\.bin: cannot be read"):
        TokenData.open(folder)
    shard.write_bytes(whole)
    TokenData.open(folder)
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    with pytest.raises(DataError, match=r"tokenizer\.json: missing, or not the tokenizer"):
        TokenData.open(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        TokenData.open(folder)
    with pytest.raises(DataError, match="no token data there"):
        TokenData.open(tmp_path)


@pytest.mark.parametrize("form", ["save_to_disk", "parquet", "json"])
@needs_gpt2
def test_openwebtext_is_split_and_ordered_as_nanogpt_does(form: str, tmp_path: Path) -> None:
    import datasets
    import tokenizers

    rows = datasets.Dataset.from_dict({"text": [story(n) for n in range(400)]})
    source = tmp_path / "source"
    if form == "save_to_disk":
        datasets.DatasetDict({"train": rows}).save_to_disk(str(source))
    else:
        source.mkdir()
        getattr(rows, f"to_{form}")(str(source / f"part.{form}"))
    before = sorted(source.rglob("*"))
    manifest = make(settings("openwebtext", source, tokenizer="gpt2", val_fraction=0.02), tmp_path)
    assert sorted(source.rglob("*")) == before  # the source may be read-only

    # nanoGPT's prepare.py, by hand: split, encode, append 50256, concatenate
    expected = rows.train_test_split(test_size=0.02, seed=2357, shuffle=True)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "data" / "test" / "tokenizer.json"))
    data = TokenData.open(tmp_path / "data" / "test")
    for split, side in ((data.train, "train"), (data.val, "test")):
        tokens = [token for text in expected[side]["text"] for token in [*backend.encode(text).ids, 50256]]
        assert split.read(0, split.tokens).tolist() == tokens
    assert manifest["splits"]["val"]["documents"] == 8
    assert manifest["dtype"] == "uint16"


def test_openwebtext_with_a_limit_keeps_both_sides(tmp_path: Path) -> None:
    import datasets

    source = tmp_path / "source"
    datasets.Dataset.from_dict({"text": [story(n) for n in range(400)]}).save_to_disk(str(source))
    manifest = make(settings("openwebtext", source, max_bytes=50_000), tmp_path)
    assert 50_000 <= manifest["text_bytes"] < 55_000
    assert 0.05 < manifest["splits"]["val"]["text_bytes"] / manifest["text_bytes"] < 0.2


def test_openwebtext_that_cannot_be_read(tmp_path: Path) -> None:
    import datasets

    with pytest.raises(DataError, match="absent does not exist here and is no hub id"):
        make(settings("openwebtext", tmp_path / "absent"), tmp_path)
    source = tmp_path / "source"
    datasets.Dataset.from_dict({"body": ["x", "y"]}).save_to_disk(str(source))
    with pytest.raises(DataError, match=r"no column 'text' \(body there\)"):
        make(settings("openwebtext", source), tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable \.parquet file"):
        make(settings("openwebtext", tmp_path / "broken"), tmp_path)


@needs_gpt2
def test_nanogpt_files_are_used_where_they_lie(tmp_path: Path) -> None:
    from pipeline.data.gpt2 import load_gpt2

    tokenizer = load_gpt2(str(GPT2))
    source = tmp_path / "source"
    source.mkdir()
    sides = {"train": [story(n) for n in range(50)], "val": [story(n) for n in range(50, 55)]}
    written = {}
    for side, texts in sides.items():
        tokens = [token for text in texts for token in [*tokenizer.encode(text), 50256]]
        written[side] = np.array(tokens, dtype=np.uint16)
        written[side].tofile(source / f"{side}.bin")
    config = settings("nanogpt", source, tokenizer="gpt2")
    manifest = make(config, tmp_path)
    folder = tmp_path / "data" / "test"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "tokenizer.json"]
    data = TokenData.open(folder)
    assert np.array_equal(data.train.read(0, data.train.tokens), written["train"])
    assert documents_of(folder, "val") == sides["val"]
    for side, texts in sides.items():
        assert manifest["splits"][side]["documents"] == len(texts)
        assert manifest["splits"][side]["text_bytes"] == sum(len(text.encode()) for text in texts)
    assert make(config, tmp_path) == manifest

    np.array([1, 60_000], dtype=np.uint16).tofile(source / "train.bin")
    with pytest.raises(DataError, match=r"train\.bin: truncated"):
        TokenData.open(folder)
    with pytest.raises(DataError, match=r"train\.bin: holds token 60000"):
        make(config, tmp_path)
    (source / "val.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"val\.bin: 3 bytes"):
        make(config, tmp_path)


def test_what_cannot_be_written_is_refused_first(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to .*file"):
        prepare(settings("local", source), tmp_path / "file" / "test", tmp_path / "runs", KEY, 1)
    with (source / "huge.txt").open("wb") as file:
        file.truncate(8 * 10**12)  # sparse: takes no space, but its tokens would
    with pytest.raises(OutputError, match=r"GB free, the work needs about 11200\.00 GB there \(5600\.00 GB of shards"):
        make(settings("local", source), tmp_path)
    assert not list((tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("text", ["", "  \n\n "])
def test_no_text_at_all(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match="the corpus is empty"):
        make(settings("local", tmp_path / "a.txt"), tmp_path)


class Endless(HashedSplit):
    """Documents made on demand that note how far reading ran ahead of finished batches."""

    signature, total_bytes = "endless", 0

    def __init__(self, folder: Path) -> None:
        super().__init__(settings("local", "x"))
        self._folder = folder
        self.ahead = 0

    def documents(self, start: int = 0) -> Iterator[Document]:
        for index in range(start, 400):
            finished = len(list(self._folder.glob("batch-*.npz")))
            self.ahead = max(self.ahead, index // 10 - finished)  # ten documents make a batch
            yield Document("x y " * 250, 1000)


def test_reading_waits_for_tokenising_and_finished_batches_stay(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(settings("local", source), tmp_path)
    tokenizer = tmp_path / "data" / "test" / "tokenizer.json"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tokenising, "BATCH_BYTES", 10_000)
    corpus = Endless(work)
    assert tokenising.tokenise(corpus, tokenizer, work, workers=2) == 40
    assert 0 < corpus.ahead <= tokenising.IN_FLIGHT * 2
    written = {path.name: path.stat().st_mtime_ns for path in work.glob("batch-*.npz")}
    content = (work / "batch-000017.npz").read_bytes()
    for lost in ("batch-000017.npz", "batch-000039.npz"):
        (work / lost).unlink()
    assert tokenising.tokenise(corpus, tokenizer, work, workers=2) == 40
    again = {path.name: path.stat().st_mtime_ns for path in work.glob("batch-*.npz")}
    changed = sorted(name for name in written if written[name] != again[name])
    assert changed == ["batch-000017.npz", "batch-000039.npz"]
    assert (work / "batch-000017.npz").read_bytes() == content


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """SIGKILL half way: its processes end with it, the next run takes up its batches, the result is the same."""
    text = "\n".join(story(n) for n in range(2000))
    (tmp_path / "long.txt").write_text("\n".join(f"{n} {text}" for n in range(12_000_000 // len(text))))
    command = [
        sys.executable,
        "-m",
        "stages.prepare_data",
        "data=local",
        f"data.source=[{tmp_path / 'long.txt'}]",
        "data.tokenizer=bpe",
        "data.tokenizer_vocab_size=300",
        "cluster.data_workers=1",
        "tracking=none",
        f"paths.runs={tmp_path / 'runs'}",
    ]
    first = subprocess.Popen(
        [*command, f"paths.data={tmp_path / 'data'}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*/batch-*.npz"))) < 2:
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.02)
    children = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not psutil.wait_procs(children, timeout=20)[1]
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/batch-*.npz")}
    assert len(kept) >= 2
    assert not list((tmp_path / "data").glob("local*"))

    second = subprocess.run(
        [*command, f"paths.data={tmp_path / 'data'}"], capture_output=True, text=True, timeout=200, check=True
    )
    assert " 0%" not in second.stderr  # progress begins where the first run ended
    third = subprocess.run(
        [*command, f"paths.data={tmp_path / 'other'}"], capture_output=True, text=True, timeout=200, check=True
    )
    assert " 0%" in third.stderr
    resumed, straight = (
        json.loads(path.read_text())
        for name in ("data", "other")
        for path in (tmp_path / name).glob("local~*/manifest.json")
    )
    assert resumed["shards"] == straight["shards"]
    assert resumed["tokenizer"] == straight["tokenizer"]
