"""What the stage refuses before it measures, and what it must not write after."""

from pathlib import Path
from typing import Any

import pytest

import pipeline.compose
from pipeline import files, provenance
from pipeline.benchmark import wire_errors
from pipeline.compose import compose, model_config
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, OutputError, RunError
from pipeline.experiment import closure
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.results import TtftResult
from stages import benchmark_ttft
from tests.unit import result_files

LOG: Any = None  # a stage that fails logs nothing


def work(*overrides: str) -> Work:
    return Work(BY_NAME["benchmark_ttft"], compose(list(overrides)))


def work_in(folder: Path) -> Work:
    found = Work(BY_NAME["benchmark_ttft"], result_files.settings(folder, "benchmark=ttft_demo"))
    found.result.parent.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["benchmark=ttft_wire", "benchmark.wire_errors.models.standard=nonexistent"], "nonexistent"),
        (
            [
                "benchmark=ttft_cpu",
                "benchmark.wires=[float32,int8]",
                "benchmark.wire_errors={size: demo, models: {standard: demo_standard}}",
            ],
            "name its model in benchmark.shapes",
        ),
    ],
)
def test_models_that_cannot_be_compared_are_refused_before_anything_is_measured(
    overrides: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        benchmark_ttft.check([work(*overrides)])
    with pytest.raises(ConfigError, match=says):
        _ = work(*overrides).key  # what every run begins with


def test_compared_models_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = work("benchmark=ttft_wire")
    assert benchmark_ttft.check([chosen]) == []
    monkeypatch.setattr(wire_errors, "free_bytes", lambda n_ranks, device: 10**8)
    (fault,) = benchmark_ttft.check([chosen])
    assert fault.startswith("benchmark.wire_errors size=demo: comparing wires over 2 ranks needs about")


def test_a_compared_model_of_another_shape_makes_a_result_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    before = work("benchmark=ttft_wire").fingerprint

    def edited(name: str) -> ModelConfig:
        model = model_config(name)
        return model.model_copy(update={"ffn_expansion": 3}) if name == "demo_kraken_4way" else model

    monkeypatch.setattr(pipeline.compose, "model_config", edited)
    assert work("benchmark=ttft_wire").fingerprint != before


@pytest.mark.parametrize(
    ("tokens", "length", "number"), [(100_000, 256, 32), (300, 256, 32), (257, 256, 1), (200, 199, 1), (2, 1, 1)]
)
def test_windows_are_spread_over_the_split_and_shorter_where_it_is(tokens: int, length: int, number: int) -> None:
    found, starts = wire_errors.spread(tokens, 256)
    assert (found, len(starts)) == (length, number)
    assert starts[0] == 0 and starts[-1] + length + 1 <= tokens
    assert starts[-1] + length + 1 > 0.9 * tokens  # to its end


def test_what_was_measured_while_the_code_changed_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = work_in(tmp_path)
    was = dict(one.code)

    def measured(*_: object) -> TtftResult:
        monkeypatch.setattr(closure, "digests", lambda paths: {**was, "pipeline/models": "edited"})
        return result_files.ttft(tmp_path, crowded=())

    monkeypatch.setattr(benchmark_ttft, "_ranks", measured)
    with pytest.raises(RunError, match="the code changed while it was measured, in pipeline/models"):
        benchmark_ttft.run(one, LOG)
    assert not one.result.exists()
    monkeypatch.setattr(benchmark_ttft, "_ranks", lambda *_: pytest.fail("measured by code that is not the result's"))
    with pytest.raises(RunError, match="the code changed while it was yet to begin"):
        benchmark_ttft.run(one, LOG)


def test_a_result_names_the_commit_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = work_in(tmp_path)
    provenance.git_commit.cache_clear()
    try:
        monkeypatch.setattr(provenance, "_git", lambda *arguments: "first" * (arguments[0] == "rev-parse"))
        one.begin()
        monkeypatch.setattr(provenance, "_git", lambda *arguments: "second" * (arguments[0] == "rev-parse"))
        assert one.provenance()["commit"] == "first"
    finally:
        provenance.git_commit.cache_clear()


def test_two_processes_never_measure_one_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = work_in(tmp_path)
    monkeypatch.setattr(benchmark_ttft, "_ranks", lambda *_: pytest.fail("measured beside another process"))
    with (
        files.locked(one.result.with_name(f".{one.result.stem}.lock"), 0, ""),
        pytest.raises(OutputError, match="another process measures it"),
    ):
        benchmark_ttft.run(one, LOG)
