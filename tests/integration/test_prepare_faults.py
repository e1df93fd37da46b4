"""What goes wrong while tokens are made: long documents, two at once, killed processes, folders of others."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.compose import compose
from pipeline.data import TokenData, manifest, tokenise
from pipeline.data import prepare as preparing
from pipeline.data.corpus import Document
from pipeline.data.local import LocalCorpus
from pipeline.errors import OutputError, RunError
from pipeline.experiment import places
from tests.integration.test_prepare_data import documents_of, make, settings, source, story

__all__ = ["source"]  # a fixture


@pytest.mark.parametrize("limit", [1, 40, 100])
def test_a_document_longer_than_a_shard_has_its_own(source: Path, tmp_path: Path, limit: int) -> None:
    body = make(settings("local", source, shard_tokens=limit, tokenizer_vocab_size=300), tmp_path)
    folder = tmp_path / "data" / "test"
    assert sorted(documents_of(folder, "train") + documents_of(folder, "val")) == sorted(map(story, range(300)))
    assert all(shard["tokens"] <= limit or shard["documents"] == 1 for shard in body["shards"])
    assert any(shard["tokens"] > limit for shard in body["shards"])
    assert limit < 100 or any(shard["documents"] > 1 for shard in body["shards"])
    assert len(list(folder.glob("*.bin"))) == len(body["shards"]) <= 300


def command(source: Path, tmp_path: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "stages.prepare_data", "data=local", f"data.source=[{source}]", "data.tokenizer=bpe"),
        *("data.tokenizer_vocab_size=300", "data.val_fraction=0.1", "data.name=test", "cluster.data_workers=1"),
        *("tracking=none", f"paths.data={tmp_path / 'data'}", f"paths.runs={tmp_path / 'runs'}", *more),
    ]


def folder_of(source: Path, tmp_path: Path, *more: str) -> Path:
    """Where the command's tokens go: a name of one's own is followed by what it stands for."""
    return places.place("data", compose(command(source, tmp_path, *more)[3:]))[0]


def test_of_two_at_once_one_waits_and_says_so(source: Path, tmp_path: Path) -> None:
    text = "\n".join(story(n) for n in range(2000))
    (source / "long.txt").write_text("\n".join(f"{n} {text}" for n in range(10)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command(source, tmp_path), **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [one.communicate(timeout=300)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sorted("another process prepares it already" in text for text in said) == [False, True]
    assert "Traceback" not in "".join(said)
    assert TokenData.open(folder_of(source, tmp_path)).train.tokens > 100_000
    assert not list((tmp_path / "runs").glob("prepare_data-*"))


def test_a_killed_holder_leaves_no_dead_lock(source: Path, tmp_path: Path) -> None:
    """Killed while its worker lives on for a moment, too."""
    script = (
        "import sys, time, pathlib; from pipeline import files\n"
        "with files.locked(pathlib.Path(sys.argv[1]), 0, ''): print('held', flush=True); time.sleep(600)"
    )
    (tmp_path / "data").mkdir()
    lock = tmp_path / "data" / f".{folder_of(source, tmp_path).name}.lock"
    holder = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waiting = subprocess.Popen(command(source, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr is not None and "another process prepares it already" in waiting.stderr.readline()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert "tokens" in waiting.communicate(timeout=120)[0] and waiting.returncode == 0


def test_a_worker_killed_while_reading_is_slow_is_one_message_and_a_rerun_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool is broken when the next batch is submitted, not when a result is awaited."""
    monkeypatch.setattr(tokenise, "BATCH_BYTES", 5000)
    config = settings("local", source)
    read = LocalCorpus.documents

    def slowly(self: LocalCorpus, start: int = 0) -> Iterator[Document]:
        for index, document in enumerate(read(self, start)):
            workers = multiprocessing.active_children()
            if index == 150 and workers:
                while not list(tmp_path.glob("runs/*/batch-*.npz")):
                    time.sleep(0.02)
                for worker in workers:
                    worker.kill()
                time.sleep(1)
            yield document

    with monkeypatch.context() as patch:
        patch.setattr(LocalCorpus, "documents", slowly)
        with pytest.raises(RunError, match=r"a tokenising process died .*run again to go on") as caught:
            make(config, tmp_path, workers=2)
    assert caught.value.exit_code == 1
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/batch-*.npz")}
    assert kept and not (tmp_path / "data" / "test").exists()
    written: list[str] = []
    assemble = preparing.assemble

    def noting(*arguments: object) -> object:
        for path in tmp_path.glob("runs/*/batch-*.npz"):
            written.extend([path.name] if kept.get(path.name) != path.stat().st_mtime_ns else [])
        return assemble(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "assemble", noting)
    assert make(config, tmp_path, workers=2)["documents"] == 300
    assert written and not set(written) & set(kept)


def test_a_worker_killed_on_the_command_line_ends_with_one_line(source: Path, tmp_path: Path) -> None:
    text = "\n".join(story(n) for n in range(2000))
    (source / "long.txt").write_text("\n".join(f"{n} {text}" for n in range(20)))
    running = subprocess.Popen(command(source, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not list(tmp_path.glob("runs/*/batch-*.npz")):
        assert running.poll() is None
        time.sleep(0.02)
    for child in psutil.Process(running.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    errors = running.communicate(timeout=120)[1]
    assert running.returncode == 1 and "Traceback" not in errors
    assert "error: a tokenising process died" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["data.name="], "data.name='': names files and folders"), (["data.name=mine"], "is not replaced")],
)
def test_nobody_elses_folder_is_deleted(source: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    mine = folder_of(source, tmp_path, "data.name=mine")
    precious = [tmp_path / "data" / "thesis.txt", mine / "thesis.txt"]
    for path in precious:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("years")
    done = subprocess.run(command(source, tmp_path, *overrides), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert all(path.read_text() == "years" for path in precious)
    assert not list(tmp_path.glob("runs/*"))  # found before any work


def test_tokens_on_another_disk_are_replaced_there(source: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "large").mkdir()
    (tmp_path / "data" / "test").symlink_to(tmp_path / "large")
    for key in ("0123456789ab", "ba9876543210"):
        assert make(settings("local", source), tmp_path, key=key)["documents"] == 300
    assert (tmp_path / "data" / "test").is_symlink()
    assert json.loads((tmp_path / "large" / manifest.FILE).read_text())["provenance"]["config_fingerprint"] == key


def test_a_machine_without_affinity_makes_tokens(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert make(settings("local", source), tmp_path, workers=0)["documents"] == 300


def test_a_disk_that_is_too_small_is_one_message_before_work(source: Path, tmp_path: Path) -> None:
    with (source / "huge.jsonl").open("wb") as file:
        file.truncate(10**13)  # sparse
    with pytest.raises(OutputError, match=r"the work needs about 14000\.00 GB there .*paths\.data or paths\.runs"):
        make(settings("local", source), tmp_path)
