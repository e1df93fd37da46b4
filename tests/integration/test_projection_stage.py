"""The projection of the paper's own grid, and a report of it, by their commands."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import files

ROOT = Path(__file__).resolve().parents[2]


def stage(name: str, root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    folders = [f"paths.{folder}={root / folder}" for folder in ("results", "engines", "report")]
    command = [sys.executable, "-m", f"stages.{name}", *folders, "tracking=none", *overrides]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def kraken(result: dict[str, Any], kind: str = "projected") -> dict[str, Any]:
    wanted = {"architecture": "kraken", "kind": kind, "against": "standard"}
    (found,) = (one for one in result["headline"]["all"] if wanted.items() <= one.items())
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("projection")


@pytest.fixture(scope="module")
def projected(root):
    done = stage("project_ttft", root, "benchmark=ttft_paper")
    assert done.returncode == 0, done.stderr
    assert "the publication's own headline: +35.6% (quoted)" in done.stdout
    return files.read_json(root / "results" / "demo" / "projection-a100_40gb_nvswitch-ttft_paper.json")


@pytest.mark.slow
def test_held_out_rows_are_predicted(projected):
    """Golden figures: Kraken's rows, none of them fitted, give the published headline to a few points."""
    assert len(projected["rows"]) == 20 * len({row["architecture"] for row in projected["rows"]})
    assert projected["errors"]["fitted"]["rows"] == 24
    assert projected["errors"]["held_out"]["rows"] == 36
    assert projected["errors"]["held_out"]["mean_absolute_error"] == pytest.approx(0.084, abs=0.01)
    assert kraken(projected)["geomean_speedup"] == pytest.approx(0.351, abs=0.02)
    assert kraken(projected, "quoted")["geomean_speedup"] == pytest.approx(0.3605, abs=2e-4)
    assert projected["published_geomean_speedup"] == 0.356
    assert not any(row["fitted"] for row in projected["rows"] if row["architecture"] == "kraken")


@pytest.mark.slow
def test_a_changed_link_has_no_published_times(root, projected):
    done = stage("project_ttft", root, "benchmark=ttft_paper", "hardware.link_bandwidth=3e10", "hardware.name=slow")
    assert done.returncode == 0, done.stderr
    (path,) = (root / "results" / "demo").glob("projection-slow~*-ttft_paper.json")
    slower = files.read_json(path)
    assert all(row["published_ms"] is None for row in slower["rows"])
    assert kraken(slower)["geomean_speedup"] > kraken(projected)["geomean_speedup"]


@pytest.mark.slow
def test_the_report_shows_the_projection(root, projected):
    done = stage("report", root)
    assert done.returncode == 0, done.stderr
    assert "projected, a100_40gb_nvswitch" in done.stdout
    body = files.read_json(root / "report" / "report.json")
    assert {"table6", "table7", "projection_a100_40gb_nvswitch-ttft_paper"} <= set(body["tables"])
    assert "scatter_a100_40gb_nvswitch-ttft_paper" in body["figures"]
    assert "Nothing of this table was measured here." in body["tables"]["table7"]["verdict"]


def test_a_report_of_nothing_exits_2(tmp_path):
    done = stage("report", tmp_path)
    assert done.returncode == 2
    assert "nothing to report" in done.stderr
    assert "Traceback" not in done.stderr
