"""Joules from a folder as the kernel shows it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.benchmark.energy import meter_of, rapl
from pipeline.benchmark.ranks.worker import RankWorker


def zone(folder: Path, name: str, microjoules: int, most: int = 1_000_000_000) -> Path:
    path = folder / name.split("=")[0]
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(name.split("=")[1] + "\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    return path


def test_packages_and_memory_are_summed_and_their_parts_are_not(tmp_path: Path) -> None:
    first, second = zone(tmp_path, "intel-rapl:0=package-0", 5_000_000), zone(tmp_path, "intel-rapl:1=package-1", 0)
    core, memory = zone(tmp_path, "intel-rapl:0:0=core", 0), zone(tmp_path, "intel-rapl:0:1=dram", 0)
    whole = zone(tmp_path, "intel-rapl:2=psys", 0)
    meter = rapl(tmp_path)
    assert meter is not None and meter.joules() == 0.0
    for path, now in ((first, 7_000_000), (second, 500_000), (core, 10**6), (memory, 250_000), (whole, 10**7)):
        (path / "energy_uj").write_text(str(now))
    assert meter.joules() == pytest.approx(2.75)


def test_a_counter_that_begins_again_counts_on(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0=package-0", 900, most=999)
    meter = rapl(tmp_path)
    assert meter is not None
    (path / "energy_uj").write_text("100")
    assert meter.joules() == pytest.approx(200e-6)
    (path / "energy_uj").write_text("150")
    assert meter.joules() == pytest.approx(250e-6)


def test_a_machine_without_counters_has_no_meter_and_makes_no_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert rapl(tmp_path) is None
    broken = zone(tmp_path, "intel-rapl:0=package-0", 0)
    (broken / "energy_uj").unlink()  # as where only root may read it
    assert rapl(tmp_path) is None
    assert meter_of(torch.device("cpu"), rank=1) is None  # the processors are rank 0's to count
    assert meter_of(torch.device("cuda", 0), rank=0) is None or torch.cuda.is_available()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_energy_is_of_forwards_as_their_rounds_run_them(monkeypatch: pytest.MonkeyPatch, cuda_graph: bool) -> None:
    """A graph is captured before the meter is read, and its memory given back after."""
    said: list[str] = []

    class Engine:
        communicator: Any = None

        def capture(self, tokens: torch.Tensor, key: str) -> None:
            said.append(f"capture {key} with {self.communicator}")

        def prefill(self, tokens: torch.Tensor) -> torch.Tensor:
            said.append("prefill")
            return tokens[:, -1]

        def release_graphs(self) -> None:
            said.append("release")

    class Meter:
        def joules(self) -> float:
            said.append("read")
            return float(len(said))

    worker: Any = RankWorker.__new__(RankWorker)
    worker.engines, worker.cuda_graph, worker.meter, worker.steps = {"kraken": Engine()}, cuda_graph, Meter(), 0
    worker.barrier = lambda: None
    monkeypatch.setattr(RankWorker, "tokens", lambda *_: torch.zeros(1, 4, dtype=torch.long))
    monkeypatch.setattr(RankWorker, "carrier", lambda self, name, mode="overlapped": f"{name}'s sums")
    assert worker.energy(4, 1, {"kraken": 2}) == {"kraken": 1.5}
    captured = ["capture overlapped with kraken's sums"] if cuda_graph else []
    assert said == [*captured, "read", "prefill", "prefill", "read", "release"]
