"""The hub's data set without a network: its .parquet files, what caches hold, proxies, and the space it takes."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from pipeline.compose import compose
from pipeline.config.data import DataConfig
from pipeline.data import hub, requirements, space
from pipeline.data.openwebtext import OPENWEBTEXT, OpenWebText
from pipeline.errors import DataError, MissingRequirementError

COMMIT = "0" * 40
REVISION = "refs/convert/parquet"
TEXTS = [f"document {number}" for number in range(50)]


def config(source: str = "owner/SomeText", **more: Any) -> DataConfig:
    values = {"name": "test", "corpus": "openwebtext", "source": [source], "revision": REVISION, "val_fraction": 0.1}
    return DataConfig.model_validate(values | more)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the hub and of `datasets`."""
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path


def write_parquet(folder: Path, texts: list[str] = TEXTS) -> Path:
    import datasets

    folder.mkdir(parents=True)
    datasets.Dataset.from_dict({"text": texts}).to_parquet(str(folder / "0000.parquet"))
    return folder


def in_hub_cache(caches: Path, folder: str = "plain_text/train", texts: list[str] = TEXTS) -> Path:
    """A snapshot as `hf download --repo-type dataset --revision refs/convert/parquet` leaves it."""
    storage = caches / "hub/datasets--owner--SomeText"
    ref = storage / "refs" / REVISION
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(COMMIT)
    return write_parquet(storage / "snapshots" / COMMIT / folder, texts)


def texts_of(corpus: OpenWebText) -> list[str]:
    return [document.text for document in corpus.documents()]


def test_a_snapshot_in_the_hubs_cache_serves_offline(caches: Path) -> None:
    import datasets

    in_hub_cache(caches)
    in_hub_cache(caches, "plain_text/validation", ["held out by others"])
    corpus = OpenWebText(config())
    assert corpus.is_here()
    split = datasets.Dataset.from_dict({"text": TEXTS}).train_test_split(test_size=0.1, seed=2357, shuffle=True)
    assert texts_of(corpus) == [*split["train"]["text"], *split["test"]["text"]]
    assert requirements.faults(config(), caches / "data/test", caches / "runs") == []


def test_what_datasets_keeps_of_an_earlier_load_serves_offline(caches: Path) -> None:
    """The very folder that load_dataset("owner/SomeText") leaves behind, script or not."""
    reader = hub.builder([next(write_parquet(caches / "files").glob("*.parquet"))])
    reader.download_and_prepare()
    kept = caches / "datasets/owner___some_text/plain_text/0.0.0" / COMMIT
    shutil.copytree(reader.cache_dir, kept)
    (kept / "parquet-train.arrow").rename(kept / "some_text-train.arrow")
    info = json.loads((kept / "dataset_info.json").read_text())
    info |= {"builder_name": "some_text", "dataset_name": "some_text", "config_name": "plain_text"}
    info["splits"]["train"]["dataset_name"] = "some_text"
    (kept / "dataset_info.json").write_text(json.dumps(info))
    corpus = OpenWebText(config())
    assert corpus.is_here() and corpus.copies == {}
    assert sorted(texts_of(corpus)) == sorted(TEXTS)


def test_what_is_neither_here_nor_to_be_had(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    corpus = OpenWebText(config())
    assert not corpus.is_here()
    with pytest.raises(MissingRequirementError, match=r"owner/SomeText cannot be fetched .*revision=refs/convert"):
        texts_of(corpus)
    (fault,) = requirements.faults(config(), caches / "data/test", caches / "runs")
    assert "owner/SomeText is not on this disk and the hub cannot be reached" in fault


@pytest.mark.parametrize(("folder", "message"), [("plain_text/partial-train", "only a part"), ("", "no .parquet")])
def test_a_part_and_a_script_are_no_data_set(caches: Path, folder: str, message: str) -> None:
    path = in_hub_cache(caches, folder or "x")
    if not folder:
        (path / "0000.parquet").rename(path.parent / "some_text.py")
    with pytest.raises(DataError, match=message):
        OpenWebText(config()).is_here()


def test_files_of_two_kinds_are_not_mixed(caches: Path) -> None:
    folder = write_parquet(caches / "files")
    (folder / "more.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"mixes \.jsonl and \.parquet"):
        texts_of(OpenWebText(config(str(folder))))


def test_the_shipped_configuration_names_repository_and_revision() -> None:
    shipped = compose(["data=openwebtext", "model=standard_124m"]).data
    assert (shipped.source, shipped.revision) == ([OPENWEBTEXT], REVISION)


def test_space_is_estimated_once_and_near_what_is_written(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of OpenWebText: 9.04e9 tokens of 2 bytes as batches and as shards, the files, and their Arrow copy."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    shipped = compose(["data=openwebtext", "model=standard_124m"]).data
    corpus = OpenWebText(shipped)
    (fault,) = space.faults(shipped, corpus, caches / "data/openwebtext", caches / "runs/work")
    sizes = {part.split(" GB of ")[1].split(" in ")[0]: float(part.split()[0]) for part in parts_of(fault)}
    assert 18.1 < sizes["shards"] == sizes["batches"] < 20
    assert fault.split(" GB there")[0] in requirements.faults(shipped, caches / "data/openwebtext", caches / "runs")[0]
    assert sum(float(part.split()[0]) for part in parts_of(fault)) == pytest.approx(40 + 40 + 24, abs=1)
    (caches / "runs/work").mkdir(parents=True)
    with (caches / "runs/work/batch-000000.npz").open("wb") as file:
        file.truncate(18_000_000_000)  # sparse
    (resumed,) = space.faults(shipped, corpus, caches / "data/openwebtext", caches / "runs/work")
    assert "1.88 GB of batches" in resumed


def parts_of(fault: str) -> list[str]:
    return fault.split(" GB there (")[1].split("):")[0].split(", ")


def test_compressed_files_count_with_their_text_and_arrow_rows_are_not_copied(caches: Path) -> None:
    import datasets

    texts = ["the same words again and again " * 50] * 2000  # 3 MB of text
    folder = write_parquet(caches / "files", texts)
    assert (folder / "0000.parquet").stat().st_size < 100_000
    corpus = OpenWebText(config(str(folder)))
    rows = datasets.Dataset.from_dict({"text": [f"{number} {text}" for number, text in enumerate(texts)]})
    rows.save_to_disk(str(caches / "saved"))
    saved = OpenWebText(config(str(caches / "saved")))
    assert saved.copies == {} and saved.text_bytes == pytest.approx(3.1e6, rel=0.1)
    assert set(corpus.copies) == {caches / "datasets"}
    assert len(texts_of(corpus)) == 2000
    assert OpenWebText(config(str(folder))).copies == {}  # copied by now


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answers for every host; a tunnel it refuses."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"HEAD {self.path}")
        self.send_response(200)
        self.end_headers()

    def do_CONNECT(self) -> None:
        self.asked.append(f"CONNECT {self.path}")
        self.send_response(502)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    Proxy.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def is_online(**more: str) -> bool:
    """Asked in a process of its own: the hub's client reads its environment when it is imported."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")}
    script = "from pipeline.data.requirements import online; print(online())"
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | more, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip() == "True"


def test_the_hub_is_asked_through_the_proxy(proxy: str) -> None:
    assert is_online(http_proxy=proxy, HF_ENDPOINT="http://hub.invalid")
    assert Proxy.asked == ["HEAD http://hub.invalid/"]
    assert not is_online(https_proxy=proxy)
    assert Proxy.asked[1:] == ["CONNECT huggingface.co:443"]
    assert not is_online(http_proxy=proxy, HF_ENDPOINT="http://hub.invalid", HF_HUB_OFFLINE="1")
    assert len(Proxy.asked) == 2
