"""Nothing is half written: not on an error, not on a full disk."""

import json
import os
import resource
import subprocess
import sys

import pytest
import torch

from pipeline import files, provenance
from pipeline.errors import OutputError
from pipeline.training.throughput import memory_bytes


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "result.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "engines"
    for content in ("old", "new"):
        write_folder(target, content)
    assert sorted(path.name for path in target.iterdir()) == ["engine.json", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def write_folder(target, content):
    with files.atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / content).write_text(content)
        files.write_json(temporary / "engine.json", {"key": content})


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"architectures": ["GPT2LMHeadModel"]}'])
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path, mark):
    target = tmp_path / "precious"
    target.mkdir()
    (target / "thesis.txt").write_text("years")
    if mark:
        (target / "config.json").write_text(mark)
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(OutputError, match="precious is not replaced"):
        write_folder(target, "new")
    assert sorted(path.name for path in target.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_link_to_a_folder_on_another_disk_stays_one(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "tokens").symlink_to(tmp_path / "large")
    for content in ("old", "new"):
        write_folder(tmp_path / "tokens", content)
    assert (tmp_path / "tokens").is_symlink() and (tmp_path / "large/new").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "tokens"]


def test_nan_is_no_result(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"loss_nats": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_message_and_leaves_nothing(small_disk):
    with pytest.raises(OutputError, match="No space left"):
        files.write_text(small_disk / "big.txt", "x" * 1_000_000)
    assert not list(small_disk.iterdir())
    with pytest.raises(OutputError, match="GB free"):
        files.check_writable(small_disk, needed_bytes=10**9)


def test_a_folder_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        files.check_writable(tmp_path / "file" / "results")


def test_fingerprints_do_not_depend_on_order():
    assert provenance.fingerprint({"a": 1, "b": 2}) == provenance.fingerprint({"b": 2, "a": 1})
    assert provenance.fingerprint({"a": 1}) != provenance.fingerprint({"a": 2})


def test_provenance_says_when_where_and_by_what():
    found = provenance.describe("abc", {"data/demo": "12ab"}, {"pipeline/data": "34cd"}, commits=["x"])
    assert (found["config_fingerprint"], found["inputs"], found["commits"]) == ("abc", {"data/demo": "12ab"}, ["x"])
    assert {"commit", "versions", "device", "created_utc"} <= set(found)
    json.dumps(found)


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert provenance.device_description()["cores"] == os.cpu_count()


def test_variants_of_a_name_lie_beside_it(tmp_path):
    for name in ("demo_standard", "demo_standard~1a2b3c", "demo_standard_2", "e-tp4-x~0000ff", "e~123456-tp4-x"):
        (tmp_path / name).mkdir()
    assert [one.name for one in files.variants(tmp_path / "demo_standard~ffffff")] == [
        "demo_standard",
        "demo_standard~1a2b3c",
    ]
    assert [one.name for one in files.variants(tmp_path / "e-tp4-x")] == ["e-tp4-x~0000ff", "e~123456-tp4-x"]
    assert files.variants(tmp_path / "nothing" / "there") == []


def test_peak_memory_is_in_bytes_where_the_system_counts_so(monkeypatch):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    peaks = []
    for system in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        peaks.append(memory_bytes(torch.device("cpu")))
    assert peaks == [usage.ru_maxrss * 1024, usage.ru_maxrss]


def test_a_lock_goes_with_its_file_and_is_held_by_one(tmp_path):
    lock = tmp_path / ".lock"
    with files.locked(lock, 0, "in use", removes=True):
        with pytest.raises(OutputError, match="in use"), files.locked(lock, 0, "in use"):
            pass
        assert lock.exists()
    assert not lock.exists()


def test_a_lock_whose_file_was_removed_while_it_was_awaited_is_taken_anew(tmp_path, monkeypatch):
    """The file that was opened is nobody's any more: whoever comes next makes another, and only that one counts."""
    lock, opened = tmp_path / ".lock", []
    taken = files._taken

    def removed_once(descriptor):
        found = taken(descriptor)
        if not opened:
            lock.unlink()  # by its last holder, just before
        opened.append(descriptor)
        return found

    monkeypatch.setattr(files, "_taken", removed_once)
    with files.locked(lock, 0, "in use"):
        assert len(opened) == 2 and lock.exists()
        monkeypatch.setattr(files, "_taken", taken)
        with pytest.raises(OutputError), files.locked(lock, 0, "in use"):
            pass
