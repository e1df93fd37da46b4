"""Engines really built: every architecture, TP 1, 2 and 4, whole and segmented, and the stage around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.compose import compose
from pipeline.errors import ConfigError, MissingRequirementError, RunError
from pipeline.export import folder as engine_folder
from pipeline.export import make
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt import build
from pipeline.export.weights import RandomSource, source_of
from pipeline.models import build_model
from pipeline.models.checkpoint import save_model
from pipeline.results import write
from tests.unit.engine_models import NAMES, config_of, spec_of

trt = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX wheel for this machine")

ROOT = Path(__file__).resolve().parents[2]
COLLECTIVES = {"standard": 4, "parallel": 2, "kraken": 2, "ladder": 4, "desync": 2}  # in two layers
COLLECTIVES |= {"parallel_track": 1, "standard_split": 6}


def stage(*overrides):
    return subprocess.run(
        [sys.executable, "-m", "stages.build_engine", "tracking=none", *overrides],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        timeout=280,
    )


@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("architecture", NAMES)
def test_a_rank_of_every_architecture_builds(tmp_path, architecture, tp_size):
    config = config_of(architecture, n_layer=2)
    spec = spec_of(config, tp_size, dtype="float16")
    found = build.build_rank(trt, spec, RandomSource(config), tp_size - 1, tmp_path)
    assert (tmp_path / f"rank{tp_size - 1}.engine").stat().st_size == found["bytes"] > 10_000
    expected = COLLECTIVES[architecture] if tp_size > 1 else 0
    assert found["collectives"] == found["segments"][0]["collectives_inside"] == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_types_build(tmp_path, dtype):
    config = config_of("kraken", n_layer=1)
    assert build.build_rank(trt, spec_of(config, 4, dtype=dtype), RandomSource(config), 0, tmp_path)["bytes"] > 10_000


@pytest.mark.parametrize("target", ["sm89", "sm120"])
def test_other_targets_build(tmp_path, target):
    config = config_of("standard", n_layer=1)
    assert build.build_rank(trt, spec_of(config, 2, target=target), RandomSource(config), 0, tmp_path)["bytes"] > 10_000


def test_segments_build_with_their_program(tmp_path):
    config = config_of("kraken", n_layer=2)
    found = build.build_rank(trt, spec_of(config, 4, mode="segmented"), RandomSource(config), 0, tmp_path)
    names = [one["name"] for one in found["segments"]]
    assert names == ["layer0.a", "layer0.b", "layer1.a", "layer1.b", "head.a", "head.b"]
    assert all((tmp_path / one["file"]).stat().st_size == one["bytes"] for one in found["segments"])
    assert all(one["collectives_inside"] == 0 for one in found["segments"])
    assert [one["do"] for one in found["program"]].count("start") == 2


@pytest.mark.slow
def test_a_124m_kraken_rank_builds_in_time_and_memory(tmp_path):
    """Under 5 s of processor time and 1.5 GB in a process of its own (this machine is shared: not wall time)."""
    code = (
        "import sys, resource, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from pipeline.compose import compose; from pipeline.export.spec import EngineSpec\n"
        "from pipeline.export.tensorrt import build, module; from pipeline.export.weights import RandomSource\n"
        "config = compose(['model=kraken_124m_4way', 'engine=tensorrt', 'engine.tp_size=4'])\n"
        "spec = EngineSpec.of(config.model, config.engine); trt = module.load('tensorrt_rtx')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_utime\n"
        "build.build_rank(trt, spec, RandomSource(config.model), 0, Path(sys.argv[1]))\n"
        "after = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(after.ru_utime - before, after.ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, timeout=200
    )
    assert done.returncode == 0, done.stderr
    seconds, kilobytes = map(float, done.stdout.split())
    assert seconds < 5
    assert kilobytes < 1.5e6
    assert (tmp_path / "rank0.engine").stat().st_size > 80e6


def engine_of(tmp_path, *overrides):
    """(config, folder of weights, engine folder) for `make`."""
    given = ["model=demo_kraken_4way", "model.n_layer=1", "model.vocab_size=4096", "engine=tensorrt"]
    config = compose([*given, "engine.module=tensorrt_rtx", "engine.tp_size=2", *overrides])
    return config.model, config.engine, tmp_path / "trained", tmp_path / "engines" / "e"


def trained(tmp_path, seed):
    model = build_model(compose(["model=demo_kraken_4way", "model.n_layer=1"]).model, seed=seed)
    save_model(tmp_path / "trained", model)


def finish(made, folder):
    """What the stage does last."""
    write(folder / "engine.json", made.result, {})


def test_unchanged_is_kept_and_any_change_is_not(tmp_path):
    trained(tmp_path, seed=1)
    lines = []
    given = engine_of(tmp_path)
    first = make.make(*given, lines.append, scale="demo")
    finish(first, given[3])
    assert not first.reused
    assert first.result.collectives == 1
    assert len(lines) == 2
    files = {path.name: path.stat().st_mtime_ns for path in given[3].iterdir()}

    again = make.make(*engine_of(tmp_path), lines.append, scale="demo")
    assert again.reused
    assert again.result.body() == first.result.body()
    assert {path.name: path.stat().st_mtime_ns for path in given[3].iterdir()} == files


def test_the_key_covers_spec_weights_and_version(tmp_path):
    def key(*overrides, version=None):
        model, engine, folder, _ = engine_of(tmp_path, *overrides)
        spec = EngineSpec.of(model, engine)
        maker = make.maker_of(spec, engine)
        maker.version = version or maker.version
        return make.key_of(spec, source_of(model, engine.weights, folder), maker, engine)

    trained(tmp_path, seed=1)
    keys = [key(), key("engine.target=sm89"), key("engine.max_batch_size=2"), key("engine.mode=segmented")]
    keys += [key("engine.dtype=bfloat16"), key("engine.tp_size=4"), key(version="1.7.2"), key("engine.weights=random")]
    assert key() == keys[0]
    trained(tmp_path, seed=2)  # other weights, same everything else
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_damaged_engine_is_built_again(tmp_path):
    given = engine_of(tmp_path, "engine.weights=random")
    finish(make.make(*given, print, scale="demo"), given[3])
    (given[3] / "rank1.engine").write_bytes(b"short")
    again = make.make(*given, print, scale="demo")
    assert not again.reused
    assert (given[3] / "rank1.engine").stat().st_size == again.result.sizes["rank1.engine"]


def test_a_build_that_fails_leaves_the_old_engine_and_nothing_half_built(tmp_path, monkeypatch):
    given = engine_of(tmp_path, "engine.weights=random")
    finish(make.make(*given, print, scale="demo"), given[3])
    before = sorted(path.name for path in given[3].iterdir())

    def fails_at_rank_1(trt, spec, source, rank, folder):
        if rank == 1:
            raise RunError("out of memory")
        return original(trt, spec, source, rank, folder)

    original = build.build_rank
    monkeypatch.setattr(build, "build_rank", fails_at_rank_1)
    with pytest.raises(RunError, match="out of memory"):
        make.make(*engine_of(tmp_path, "engine.weights=random", "engine.target=sm89"), print, scale="demo")
    assert sorted(path.name for path in given[3].iterdir()) == before
    assert [path.name for path in given[3].parent.iterdir()] == ["e"]
    assert engine_folder.read(given[3]).target == "sm80"


def test_what_tensorrt_says_is_in_the_message(tmp_path):
    """A profile that no kernel can take: TensorRT itself refuses, and its words come through."""
    config = config_of("standard", n_layer=1)
    spec = spec_of(config, 1)
    impossible = spec.__class__(**{**spec.__dict__, "max_batch_size": 0})
    with pytest.raises(RunError, match=r"tensorrt_rtx could not build whole: .*profile"):
        build.build_rank(trt, impossible, RandomSource(config), 0, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.target=sm90"], "builds for sm75, sm80, sm86, sm89, sm120, sm121"),
        (["engine.target=sm75"], "need sm80 or later"),
        (["engine.tp_size=3"], "must divide the 4 ways"),
        (["engine.head_padding=false"], "no fused attention kernel has heads 86 wide"),
        (["engine.weights=trained"], "train it first"),
    ],
)
def test_bad_input_is_one_message_before_any_work(tmp_path, overrides, message):
    with pytest.raises(Exception, match=message) as caught:
        make.make(*engine_of(tmp_path, "engine.weights=random", *overrides), print, scale="demo")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "engines").exists()


def test_a_missing_module_names_what_to_install(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here: tensorrt may be too")
    with pytest.raises(MissingRequirementError, match=r"engine\.module=tensorrt cannot be imported"):
        make.make(*engine_of(tmp_path, "engine.module=tensorrt", "engine.weights=random"), print, scale="demo")


@pytest.mark.slow
def test_the_stage_builds_four_engines_and_writes_their_description(tmp_path):
    given = ["model=demo_kraken_4way", "engine=tensorrt", "engine.module=tensorrt_rtx", "engine.tp_size=4"]
    given += ["engine.weights=random", f"paths.engines={tmp_path}"]
    done = stage(*given)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.glob("demo_kraken_4way-tp4-tensorrt~*")  # weights=random is not what the file says
    body = json.loads((folder / "engine.json").read_text())
    assert (body["ranks"], body["collectives"], body["module"], body["target"]) == (4, 4, "tensorrt_rtx", "sm80")
    assert body["version"] == trt.__version__
    assert {f"rank{rank}.engine" for rank in range(4)} <= {path.name for path in folder.iterdir()}
    config = compose(given)
    assert body["provenance"]["config_fingerprint"] == config.fingerprint("model", "data", "training", "engine")
    assert "4 collectives a forward" in done.stdout
    again = stage(*given)
    assert "done before, kept" in again.stdout
    (folder / "engine.json").write_text(json.dumps(body | {"provenance": {}}))
    assert "unchanged, kept" in stage(*given).stdout


@pytest.mark.slow
def test_the_stage_says_what_tensorrt_llm_needs_and_leaves_nothing(tmp_path):
    done = stage("model=kraken_124m_4way", "engine=tensorrt_llm", f"paths.engines={tmp_path / 'e'}")
    assert done.returncode == 2
    assert "0.12 to 1.2.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "e").exists()


def test_torch_has_nothing_to_build(tmp_path):
    config = compose(["model=demo_standard", "engine=torch", "engine.weights=random"])
    made = make.make(config.model, config.engine, tmp_path, tmp_path / "engines" / "e", print, scale="demo")
    assert list(made.result.sizes) == ["spec.json"]
    assert "nothing is built" in made.result.status


def test_huggingface_of_two_ranks_is_refused(tmp_path):
    config = compose(["model=demo_standard", "engine=huggingface", "engine.tp_size=2", "engine.weights=random"])
    with pytest.raises(ConfigError, match="a whole model"):
        make.make(config.model, config.engine, tmp_path, tmp_path / "e", print, scale="demo")
