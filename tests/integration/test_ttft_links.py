"""Links of known speed, and nothing left behind however a benchmark ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.benchmark.ranks import links
from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.compose import compose
from pipeline.errors import MissingRequirementError, PipelineError, RunError
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.tracking import StageRun
from stages.benchmark_ttft import run
from tests.integration.test_ttft_ranks import spec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def may_shape() -> bool:
    try:
        links.check_privilege(["1gbit"])
    except MissingRequirementError:
        return False
    return True


needs_root = pytest.mark.skipif(not may_shape(), reason="links of a chosen speed need Linux, root, ip and tc")


def namespaces() -> list[str]:
    return [path.name for path in links.NAMESPACES.glob(f"{links.PREFIX}*")] if links.NAMESPACES.is_dir() else []


@needs_root
@pytest.mark.parametrize("tp_size", [2, 3])
def test_a_link_carries_what_its_name_says_and_changes_while_ranks_run(tmp_path, tp_size):
    with links.NamespaceLinks(tp_size) as joined:
        plain = replace(spec(tp_size, tmp_path), interfaces=joined.interfaces, transport="socket")
        with RankGroup(plain, joined, 60) as ranks:
            for name, rate in (("50mbit", 50e6), ("200mbit", 200e6)):
                joined.set_link(name)
                measured = ranks.command("link", payload_bytes=2_000_000, repeats=3)[0]
                assert 0.8 * rate < measured < 1.1 * rate, name
    assert not [name for name in namespaces() if str(os.getpid()) in name]


@needs_root
def test_a_failing_rank_takes_its_namespaces_with_it(tmp_path):
    with pytest.raises(RunError, match="rank 0 died"), links.NamespaceLinks(2) as joined:
        joined.set_link("100mbit")
        plain = replace(spec(2, tmp_path), interfaces=joined.interfaces)
        with RankGroup(plain, joined, 60) as ranks:
            os.kill(ranks.processes[0].pid, signal.SIGKILL)
            ranks.command("load", models={}, folders={})
    assert not [name for name in namespaces() if str(os.getpid()) in name]


@needs_root
def test_what_a_killed_maker_left_is_removed_by_the_next():
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stale = f"{links.PREFIX}{int(dead.stdout)}r0"
    subprocess.run(["ip", "netns", "add", stale], check=True)
    alive = f"{links.PREFIX}{os.getpid()}r7"
    subprocess.run(["ip", "netns", "add", alive], check=True)
    try:
        assert stale in links.remove_stale()
        assert stale not in namespaces()
        assert alive in namespaces()  # its maker still runs
    finally:
        subprocess.run(["ip", "netns", "del", alive], check=True)


def test_without_the_privilege_the_refusal_says_what_to_do(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if shutil.which("ip") and shutil.which("tc"):
        with pytest.raises(MissingRequirementError, match=r"300mbit.*need root.*link=loopback"):
            links.check_privilege(["300mbit", "loopback"])
    links.check_privilege(["loopback"])  # needs nothing


def test_one_launch_serves_all_rates():
    assert links.launches(["100mbit", "loopback", "1gbit"]) == [["100mbit", "1gbit"], ["loopback"]]


def stage(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.benchmark_ttft", "benchmark=ttft_demo", "tracking=none"]
    command += [f"paths.results={folder}", "benchmark.tp_sizes=[2]", "benchmark.contexts=[64]", *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ranks_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The rank processes under a stage, once both are there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        children = [
            c for c in psutil.Process(process.pid).children() if "benchmark.ranks.rank" in " ".join(c.cmdline())
        ]
        if len(children) == 2:
            return children
        time.sleep(0.2)
    raise AssertionError(f"no two ranks appeared: {process.stderr.read() if process.stderr else ''}")


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not alive


def test_a_terminated_stage_leaves_no_rank_no_namespace_and_no_result(tmp_path):
    process = stage(tmp_path, *(["link=rate"] if may_shape() else []), "benchmark.time_limit_s=300")
    ranks = ranks_of(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert gone(ranks)
    assert not [name for name in namespaces() if str(process.pid) in name]
    assert not list(tmp_path.rglob("*.json"))


def test_a_rank_killed_under_the_stage_is_exit_1_with_its_name(tmp_path):
    process = stage(tmp_path, "benchmark.time_limit_s=300")
    ranks = ranks_of(process)
    time.sleep(1)
    begun = time.monotonic()
    ranks[1].kill()
    _, text = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode == 1
    assert "died (killed by SIGKILL)" in text and "Traceback" not in text.split("log:")[0]
    assert gone(ranks) and not list(tmp_path.rglob("*.json"))


def test_the_demo_grid_ends_to_end(tmp_path):
    quick = ["launches=2", "repeats_min=3", "repeats_max=3", "warmup_max=2", "decode_tokens=2", "time_limit_s=40"]
    process = stage(tmp_path, *(f"benchmark.{item}" for item in quick))
    assert process.stdout
    for line in process.stdout:
        if "launch 2 of 2: starting" in line:
            break
    process.kill()
    process.communicate(timeout=30)
    assert not list((tmp_path / "demo").glob("*.json"))
    process = stage(tmp_path, *(f"benchmark.{item}" for item in quick))
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "2/4  launch 1 of 2: kept from before" in out and "launch 1 of 2: starting" not in out
    assert not list((tmp_path / "demo").glob(".*"))
    (path,) = (tmp_path / "demo").glob("ttft-ttft_demo~*.json")
    body = json.loads(path.read_text())
    rows = {row["architecture"]: row for row in body["rows"]}
    architectures = compose(["benchmark=ttft_demo"]).benchmark.architectures
    assert list(rows) == [*architectures, "no_communication"]
    for row in rows.values():
        assert row["kind"] == "measured" and [len(launch) for launch in row["samples_ms"]] == [3, 3]
        assert row["ttft_ms_low"] is None and row["stopped_by"] == "repeats_max"  # two launches have no interval
        assert row["ttft_ms_min"] <= row["ttft_ms_median"] <= row["ttft_ms_p95"]
        assert row["speedup"] == pytest.approx(rows["standard"]["ttft_ms_median"] / row["ttft_ms_median"] - 1)
        assert row["exposed_communication_ms"] == pytest.approx(row["ttft_ms_median"] - row["compute_ms"])
    assert rows["no_communication"]["ttft_ms_median"] == rows["standard"]["compute_ms"]
    assert {row["architecture"] for row in body["breakdown"]} == set(rows) - {"no_communication"}
    assert len(body["decode_rows"]) == len(architectures)
    drawn = next(one for one in body["timelines"] if one["architecture"] == "kraken")
    lanes = {event["lane"] for event in drawn["events"]}
    assert lanes == {"compute", "communication"}
    for path in body["traces"]:
        assert Path(path).stat().st_size > 0
    trace = json.loads(Path(body["traces"][0]).read_text())
    assert {event["pid"] for event in trace["traceEvents"]} == {0, 1}
    assert "95% interval" in out


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["benchmark.contexts=[512]"], "reads at most 256 tokens"),
        (["benchmark.tp_sizes=[3]"], "tp_sizes=3"),
        (["link=rate", "link.links=[fast]"], "must be loopback or a rate"),
        (["benchmark.decode_tokens=250", "benchmark.contexts=[64]"], "more than the 256"),
        (["benchmark.batch_sizes=[40000000]"], "GB are free for each"),
    ],
)
def test_bad_input_is_refused_before_any_rank_starts(tmp_path, overrides, says):
    with pytest.raises(PipelineError, match=re.escape(says)) as caught:
        grid = ["benchmark=ttft_demo", "benchmark.tp_sizes=[2]", "benchmark.contexts=[64]"]
        config = compose([*grid, f"paths.results={tmp_path}", *overrides])
        run(Work(BY_NAME["benchmark_ttft"], config), StageRun())
    assert caught.value.exit_code == 2
    assert not list(tmp_path.rglob("*.json"))


def test_the_refusal_on_the_command_line_is_one_message_and_exit_2(tmp_path):
    process = stage(tmp_path, "benchmark.contexts=[512]")
    _, text = process.communicate(timeout=60)
    assert process.returncode == 2 and text.startswith("error:") and "Traceback" not in text
