"""Rows of built engines, and what is refused before a GPU is looked for."""

import json

import pytest
import torch

from pipeline.benchmark.built.ttft import VERIFIED, engine_rows, time_engines
from pipeline.benchmark.protocol import Rules
from pipeline.errors import CheckpointError, ConfigError, MissingRequirementError
from pipeline.export import folder as engine_folder

RULES = Rules(2, 4, 3, 5, 0.05, 10.0)


def body(name, **changes):
    return {
        "model": f"demo_{name}",
        "engine": "tensorrt",
        "ranks": 4,
        "mode": "segmented",
        "dtype": "float16",
        "module": "tensorrt",
        "version": "11.0",
        "weights": "random",
        "collectives": 8,
        "key": "k",
        "sizes": {},
        **changes,
    }


def write(folder, name, **changes):
    folder.mkdir(parents=True)
    (folder / "engine.json").write_text(json.dumps(body(name, **changes)))
    return folder


def test_rows_have_the_benchmarks_keys_and_name_engine_mode_and_status():
    bodies = {name: body(name) for name in ("standard", "kraken")}
    result = {
        "samples_ms": {"standard": [4.0, 4.2, 4.1], "kraken": [2.0, 2.1, 2.05]},
        "warmup_rounds": 2,
        "ranks_agree": {"standard": True, "kraken": False},
    }
    rows = engine_rows(bodies, result, 128, 1, "demo")
    promised = "architecture size context tp_size engine link ttft_ms_median ttft_ms_p95 speedup compute_ms "
    promised += "exposed_communication_ms hideable_ms share_hidden repeats"
    for row in rows:
        assert set(promised.split()) <= set(row)
        assert (row["engine"], row["mode"], row["verified"]) == ("tensorrt", "segmented", VERIFIED)
        assert row["hideable_ms"] is None  # no bound without collectives was timed
    kraken = rows[1]
    assert kraken["ttft_ms_median"] == 2.05
    assert kraken["speedup"] == pytest.approx(4.1 / 2.05 - 1)
    assert kraken["speedup_low"] <= kraken["speedup"] <= kraken["speedup_high"]
    assert kraken["ranks_agree"] is False


@pytest.mark.parametrize("changes", [{"mode": "whole"}, {"ranks": 2}, {"dtype": "float32"}, {"version": "10.16"}])
def test_engines_that_are_not_alike_are_not_compared(tmp_path, changes):
    folders = {
        "standard": write(tmp_path / "a", "standard"),
        "kraken": write(tmp_path / "b", "kraken", **changes),
    }
    with pytest.raises(ConfigError, match=f"engines differ in {next(iter(changes))}"):
        time_engines(folders, [(128, 1)], RULES)


def test_other_engines_and_none_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="build some with"):
        time_engines({}, [(128, 1)], RULES)
    with pytest.raises(ConfigError, match="must all be tensorrt"):
        time_engines({"standard": write(tmp_path / "a", "standard", engine="checkpoint")}, [(128, 1)], RULES)
    with pytest.raises(CheckpointError, match="no engine in"):
        time_engines({"standard": tmp_path / "nowhere"}, [(128, 1)], RULES)


def test_without_gpus_it_says_how_many_are_needed(tmp_path):
    if torch.cuda.device_count() >= 4:
        pytest.skip("enough GPUs are here")
    with pytest.raises(MissingRequirementError, match="4 CUDA GPUs are needed"):
        time_engines({"standard": write(tmp_path / "a", "standard")}, [(128, 1)], RULES)


def test_an_engine_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match=r"built by tensorrt 11\.0, here is tensorrt_rtx 1\.7"):
        engine_folder.check_version(body("standard"), "tensorrt_rtx", "1.7")
    engine_folder.check_version(body("standard"), "tensorrt", "11.0")


@pytest.mark.parametrize("damage", ["cut", "missing", "no json"])
def test_incomplete_engines_are_named(tmp_path, damage):
    folder = write(tmp_path / "a", "standard", sizes={"rank0.engine": 4})
    if damage == "cut":
        (folder / "rank0.engine").write_bytes(b"abc")
    elif damage == "no json":
        (folder / "engine.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"3 bytes, not 4|is missing|does not describe"):
        engine_folder.read(folder)
