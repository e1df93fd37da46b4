"""Rows of built engines, and what is refused before a GPU is looked for."""

import json

import pytest
import torch

from pipeline.benchmark.built.ttft import VERIFIED, engine_rows, time_engines
from pipeline.benchmark.protocol import Rules
from pipeline.errors import CheckpointError, ConfigError, MissingRequirementError
from pipeline.export import folder as engine_folder
from pipeline.results import EngineResult, read, write
from pipeline.results.headline import headline
from tests.unit.result_files import PROVENANCE, built_engine

MODELS = {"standard": "demo_standard", "kraken": "demo_kraken_4way"}
RULES = Rules(2, 4, 3, 5, 0.05, 10.0)


def described(folder, name, **changes):
    """The folder that build_engine would leave, without the engine's bytes."""
    write(folder / "engine.json", built_engine(f"demo_{name}", **changes), PROVENANCE)
    return folder


def test_rows_have_the_benchmarks_keys_and_name_engine_mode_and_status():
    engines = {name: built_engine(model) for name, model in MODELS.items()}
    result = {
        "samples_ms": {"standard": [[4.0, 4.2, 4.1] * 2], "kraken": [[2.0, 2.1, 2.05] * 2]},
        "stopped_by": "repeats_max",
        "warmup_rounds": 2,
        "ranks_agree": {"standard": True, "kraken": False},
    }
    rows = engine_rows(engines, result, 128, 1, "demo")
    for row in rows:
        assert (row.engine, row.mode, row.engine_version) == ("tensorrt", "segmented", "tensorrt 11.0")
        assert row.comparability == VERIFIED
        assert row.hideable_ms is None  # no bound without collectives was timed
    kraken = rows[1]
    assert kraken.ttft_ms_median == 2.05 and kraken.samples_ms == [[2.0, 2.1, 2.05] * 2]
    assert kraken.stopped_by == "repeats_max"
    assert kraken.speedup == pytest.approx(4.1 / 2.05 - 1)
    assert kraken.speedup_low <= kraken.speedup <= kraken.speedup_high
    assert kraken.ranks_agree is False


def test_engines_that_did_not_take_turns_have_no_paired_interval():
    engines = {name: built_engine(model) for name, model in MODELS.items()}
    samples = {"standard": [[4.0, 4.2, 4.1] * 2], "kraken": [[2.0, 2.1, 2.05, 2.2] * 2]}
    result = {"samples_ms": samples, "warmup_rounds": 2, "ranks_agree": {}}
    rows = engine_rows(engines, result, 128, 1, "demo", paired=False)
    assert rows[1].speedup_low is None and not rows[1].paired
    (entry,) = headline(rows).all
    assert entry.geomean_speedup_low < entry.geomean_speedup < entry.geomean_speedup_high


@pytest.mark.parametrize("changes", [{"mode": "whole"}, {"ranks": 2}, {"dtype": "float32"}, {"version": "10.16"}])
def test_engines_that_are_not_alike_are_not_compared(tmp_path, changes):
    folders = {
        "standard": described(tmp_path / "a", "standard"),
        "kraken": described(tmp_path / "b", "kraken_4way", **changes),
    }
    with pytest.raises(ConfigError, match=f"engines differ in {next(iter(changes))}"):
        time_engines(folders, [(128, 1)], RULES)


def test_other_engines_and_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="build some with"):
        time_engines({}, [(128, 1)], RULES)
    with pytest.raises(ConfigError, match="must all be tensorrt"):
        time_engines({"standard": described(tmp_path / "a", "standard", engine="checkpoint")}, [(128, 1)], RULES)
    with pytest.raises(CheckpointError, match="no engine in"):
        time_engines({"standard": tmp_path / "nowhere"}, [(128, 1)], RULES)


def test_without_gpus_it_says_how_many_are_needed(tmp_path):
    if torch.cuda.device_count() >= 4:
        pytest.skip("enough GPUs are here")
    with pytest.raises(MissingRequirementError, match="4 CUDA GPUs are needed"):
        time_engines({"standard": described(tmp_path / "a", "standard")}, [(128, 1)], RULES)


def test_an_engine_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match=r"built by tensorrt 11\.0, here is tensorrt_rtx 1\.7"):
        engine_folder.check_version(built_engine("demo_standard"), "tensorrt_rtx", "1.7")
    engine_folder.check_version(built_engine("demo_standard"), "tensorrt", "11.0")


@pytest.mark.parametrize("damage", ["cut", "missing", "no json"])
def test_incomplete_engines_are_named(tmp_path, damage):
    folder = described(tmp_path / "a", "standard", sizes={"rank0.engine": 4})
    if damage == "cut":
        (folder / "rank0.engine").write_bytes(b"abc")
    elif damage == "no json":
        (folder / "engine.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"3 bytes, not 4|is missing|is damaged .*make it again with"):
        engine_folder.read(folder)


def test_an_engine_of_an_earlier_format_is_built_again(tmp_path):
    """It says no format: engines that gave the whole vocabulary did not."""
    folder = described(tmp_path / "a", "standard")
    body = json.loads((folder / "engine.json").read_text())
    del body["engine_format"]
    (folder / "engine.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match=r"built in format 1, here is 2: build it again with python -m stages"):
        time_engines({"standard": folder}, [(128, 1)], RULES)
    assert not engine_folder.is_current(folder, body["key"])
    assert read(folder / "engine.json", EngineResult).engine_format == 1  # its own facts can still be read
