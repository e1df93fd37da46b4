"""TensorRT-LLM without TensorRT-LLM: golden files of what it is given, and the way to its environment and back.

`python -m tests.unit.test_engine_tensorrt_llm` writes the golden files anew.
"""

import ast
import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest

from pipeline.compose import model_config
from pipeline.config.engine import EngineConfig
from pipeline.errors import ConfigError, MissingRequirementError, RunError
from pipeline.export import make
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt_llm import checkpoint
from pipeline.export.tensorrt_llm.environment import CONTAINER, WORKER, Environment
from pipeline.export.tensorrt_llm.layout import entries
from pipeline.export.tensorrt_llm.maker import MODEL_FILE, TensorRTLLMMaker, build_command
from pipeline.models import Placement, build_model
from tests.unit.engine_models import config_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "engine"
NAMES = ("demo_standard", "demo_parallel", "demo_kraken_4way", "kraken_124m_4way", "standard_1_3b", "kraken_1_3b_8way")


def spec_named(name):
    tp_size = 8 if name.endswith("8way") else 4
    engine = EngineConfig.model_validate({"name": "tensorrt_llm", "tp_size": tp_size})
    return EngineSpec.of(model_config(name), engine)


def golden_of(name):
    """Everything TensorRT-LLM is given for a model, with folders by letters."""
    spec = spec_named(name)
    names = dict(build_model(spec.model, Placement(0, spec.tp_size), seed=None, device="meta").named_parameters())
    command = build_command(spec, "1.2.1", Path("/checkpoint"), Path("/engines"))
    tensors = {key: list(entry.shape) for key, entry in entries(spec, 0, names).items()}
    if spec.model.n_layer > 4:  # layers are alike: the first and the last
        middle = [f".layers.{layer}." for layer in range(1, spec.model.n_layer - 1)]
        tensors = {key: shape for key, shape in tensors.items() if not any(part in key for part in middle)}
    return {
        "config": checkpoint.config_body(spec),
        "rank0": tensors,
        "command": [word.replace(str(MODEL_FILE), "/model.py") for word in command],
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_tensorrt_llm_is_given_is_golden(name):
    assert golden_of(name) == json.loads((GOLDEN / f"{name}.json").read_text())


def test_first_release_has_another_flag_for_no_cache():
    spec = spec_named("demo_standard")
    old, new = (build_command(spec, version, Path("/c"), Path("/e")) for version in ("0.12.0", "0.13.0"))
    assert "--paged_kv_cache=disable" in old
    assert "--kv_cache_type=disabled" in new


def test_model_file_names_the_checkpoints_tensors():
    """Every attribute on the way to a tensor of the checkpoint is assigned in the model file."""
    tree = ast.parse(MODEL_FILE.read_text())
    assigned = {
        target.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute)
    }
    stock = {"transformer", "lm_head", "qkv", "dense", "fc", "proj", "weight", "bias"}  # made by TensorRT-LLM's classes
    for name in ("demo_parallel", "demo_kraken_4way"):
        for key in golden_of(name)["rank0"]:
            parts = {part for part in key.split(".") if not part.isdigit()}
            assert parts <= assigned | stock, key
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    assert {"KrakenForCausalLM", "ParallelForCausalLM"} <= classes


def test_worker_needs_the_standard_library_and_python_3_10_only():
    tree = ast.parse(WORKER.read_text(), feature_version=(3, 10))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in top if isinstance(node, ast.ImportFrom)}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names
    ast.parse(MODEL_FILE.read_text(), feature_version=(3, 10))


FAKE_BUILD = """#!{python}
import json, os, sys
from pathlib import Path
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
config = json.loads(Path(given["checkpoint_dir"], "config.json").read_text())
if os.environ.get("FAKE_BUILD") == "fails":
    print("out of memory on device"); sys.exit(3)
for rank in range(config["mapping"]["tp_size"] - (os.environ.get("FAKE_BUILD") == "forgets")):
    Path(given["output_dir"], f"rank{{rank}}.engine").write_text("engine of " + config["architecture"])
"""


def fake_venv(folder, version="1.2.1"):
    """A venv whose Python knows of tensorrt_llm and whose trtllm-build writes small files: for plumbing only."""
    site, binaries = folder / "site", folder / "bin"
    binaries.mkdir(parents=True)
    if version:
        info = site / f"tensorrt_llm-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {version}\n")
    scripts = {
        "python": f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n',
        "trtllm-build": FAKE_BUILD.format(python=sys.executable),
    }
    for name, text in scripts.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755 | stat.S_IXUSR)
    return folder


def engine_in(venv, **changes):
    given = {"name": "tensorrt_llm", "tp_size": 4, "weights": "random", "environment": "venv", **changes}
    return EngineConfig.model_validate({**given, "environment_path": str(venv)})


def make_in(tmp_path, venv, say=lambda line: None, **changes):
    return make.make(
        config_of("kraken"), engine_in(venv, **changes), tmp_path / "t", tmp_path / "engines" / "e", say, scale="demo"
    )


def test_plumbing_from_spec_file_to_engines_and_back(tmp_path):
    lines = []
    made = make_in(tmp_path, fake_venv(tmp_path / "venv"), lines.append)
    assert (tmp_path / "engines" / "e" / "rank3.engine").read_text() == "engine of KrakenForCausalLM"
    assert made.result.version == "1.2.1"
    assert made.result.environment_versions["python"]
    assert "rank3.engine" in made.result.sizes
    assert "checkpoint/rank0.safetensors" in made.result.sizes
    assert any(line.startswith("trtllm-build --checkpoint_dir=") for line in lines)


@pytest.mark.parametrize(
    ("fault", "message"), [("fails", "ended with 3: out of memory on device"), ("forgets", "but wrote")]
)
def test_a_failed_build_is_told_and_leaves_nothing(tmp_path, monkeypatch, fault, message):
    monkeypatch.setenv("FAKE_BUILD", fault)
    with pytest.raises(RunError, match=message):
        make_in(tmp_path, fake_venv(tmp_path / "venv"))
    assert list((tmp_path / "engines").iterdir()) == []


@pytest.mark.parametrize("version", ["1.3.0", "0.11.0", None])
def test_other_releases_are_refused_with_what_would_do(tmp_path, version):
    with pytest.raises(MissingRequirementError) as caught:
        make_in(tmp_path, fake_venv(tmp_path / "venv", version))
    text = str(caught.value)
    for part in ("0.12 to 1.2.1", "Python 3.10 or 3.12", CONTAINER, "engine=checkpoint"):
        assert part in text
    assert not (tmp_path / "engines").exists()


def test_a_worker_that_writes_nonsense_is_refused(tmp_path):
    venv = fake_venv(tmp_path / "venv")
    (venv / "bin" / "python").write_text('#!/bin/sh\necho \'{"format": 1, "action": "probe"}\' > "$3"\n')
    with pytest.raises(RunError, match="a result that is none"):
        make_in(tmp_path, venv)
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(RunError, match="no result file"):
        make_in(tmp_path, venv)
    (venv / "bin" / "python").write_text("#!/bin/sh\necho Segmentation fault; exit 139\n")
    with pytest.raises(RunError, match="ended with 139: Segmentation fault"):
        make_in(tmp_path, venv)


def test_environments_are_checked_before_any_work(tmp_path, monkeypatch):
    given = {"name": "tensorrt_llm", "environment": "docker"}
    with pytest.raises(ConfigError, match="must name the container image"):
        Environment.of(EngineConfig.model_validate(given))
    with pytest.raises(ConfigError, match="no venv there"):
        Environment.of(engine_in(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingRequirementError, match="no docker on PATH"):
        Environment.of(EngineConfig.model_validate({**given, "environment_path": CONTAINER}))


def test_docker_command_mounts_what_the_build_reads_and_writes(tmp_path):
    command = Environment("docker", CONTAINER).command(["/s/spec.json", "/s/result.json"], [Path("/s"), tmp_path])
    assert command[:3] == ["docker", "run", "--rm"]
    assert "--gpus=all" in command
    for folder in (Path("/s"), tmp_path, WORKER.parent):
        assert f"--volume={folder}:{folder}" in command
    assert command[command.index(CONTAINER) :] == [CONTAINER, "python3", str(WORKER), "/s/spec.json", "/s/result.json"]


def test_architectures_without_a_class_and_ways_shared_by_a_rank_are_refused():
    engine = EngineConfig.model_validate({"name": "tensorrt_llm", "tp_size": 2})
    with pytest.raises(ConfigError, match="not ladder"):
        TensorRTLLMMaker(EngineSpec.of(config_of("ladder"), engine), engine)
    with pytest.raises(ConfigError, match="one way a rank; 4 would be"):
        TensorRTLLMMaker(EngineSpec.of(config_of("kraken"), engine), engine)


def test_benchmark_times_ranks_under_mpirun_or_says_why_not(tmp_path):
    """Without mpirun the worker hands back the failure as a result, not a traceback."""
    venv = fake_venv(tmp_path / "venv")
    environment = Environment.of(engine_in(venv))
    found = environment.run({"action": "benchmark", "tp_size": 4, "environment": {"PATH": os.devnull}}, [])
    assert found.exit_code != 0
    assert re.search(r"mpirun|mpi", found.tail)
    assert found.samples_ms == []


@pytest.mark.tensorrt_llm
def test_model_file_imports_where_tensorrt_llm_is():
    pytest.importorskip("tensorrt_llm", reason="needs an environment with tensorrt_llm 0.12 to 1.2")
    from pipeline.export.tensorrt_llm import model as tensorrt_llm_model

    assert tensorrt_llm_model.VERSION


if __name__ == "__main__":
    for one in NAMES:
        (GOLDEN / f"{one}.json").write_text(json.dumps(golden_of(one), indent=1) + "\n")
