"""Whether a machine counts as left alone: the kernel's counters, read back from files of known content."""

import os
from pathlib import Path

import pytest

from pipeline.benchmark.idle import UNKNOWN, Usage, Watch, worst


def proc(folder: Path, *, user: int, idle: int, steal: int = 0, softirq: int = 0, own: dict[int, int]) -> Path:
    (folder / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 {softirq} {steal} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    for pid, ticks in own.items():
        (folder / str(pid)).mkdir(exist_ok=True)
        before = " ".join(["S", *["0"] * 10])
        (folder / str(pid) / "stat").write_text(f"{pid} (a name) of (two)) {before} {ticks} 0 0 0\n")
    return folder


@pytest.fixture
def launcher() -> int:
    return os.getpid()


def test_what_ranks_and_launcher_take_is_not_others(tmp_path: Path, launcher: int) -> None:
    watch = Watch([7], proc(tmp_path, user=1000, idle=500, own={7: 100, launcher: 50}))
    proc(tmp_path, user=1180, idle=520, own={7: 250, launcher: 60})
    assert watch.usage() == Usage(others=(180 - 160) / 200, steal=0.0)


def test_interrupts_of_the_ranks_own_traffic_are_not_others(tmp_path: Path, launcher: int) -> None:
    watch = Watch([], proc(tmp_path, user=0, idle=0, own={launcher: 0}))
    proc(tmp_path, user=40, idle=0, softirq=60, own={launcher: 40})
    assert watch.usage().others == 0.0


def test_what_the_host_takes_is_told(tmp_path: Path, launcher: int) -> None:
    watch = Watch([], proc(tmp_path, user=0, idle=0, own={launcher: 0}))
    proc(tmp_path, user=70, idle=0, steal=30, own={launcher: 70})
    assert watch.usage() == Usage(others=0.0, steal=0.3)


def test_without_counters_nothing_is_said(tmp_path: Path) -> None:
    usage = Watch([1], tmp_path / "nowhere").usage()
    assert usage == UNKNOWN and usage.is_busy(2, 2) is None
    (tmp_path / "stat").write_text("something else\n")
    assert Watch([1], tmp_path).usage() == UNKNOWN


def test_a_row_is_busy_by_the_cores_that_its_ranks_use() -> None:
    assert not Usage(0.04, 0.0).is_busy(used_cores=2, cores=2)
    assert Usage(0.06, 0.0).is_busy(used_cores=2, cores=2)
    assert not Usage(0.01, 0.0).is_busy(used_cores=2, cores=8)  # 0.08 cores of 2
    assert Usage(0.02, 0.0).is_busy(used_cores=2, cores=8)
    assert Usage(0.0, 0.03).is_busy(used_cores=2, cores=2)


def test_the_worst_launch_counts() -> None:
    assert worst([Usage(0.1, 0.0), UNKNOWN, Usage(0.0, 0.2)]) == Usage(0.1, 0.2)
    assert worst([UNKNOWN]) == UNKNOWN


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux tells what CPU time was spent on")
def test_this_process_is_its_own() -> None:
    watch = Watch()
    end = os.times().user + 0.3
    while os.times().user < end:
        pass
    alone = Watch.__new__(Watch)
    alone.pids, alone.proc, alone.before = set(), watch.proc, watch.before
    with_us, without_us = watch.usage().others, alone.usage().others
    assert with_us is not None and without_us is not None
    assert without_us > with_us  # the same stretch, this process counted among the others
