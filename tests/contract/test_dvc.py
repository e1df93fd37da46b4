"""dvc.yaml against the stage list: commands, the code each stage loads, the config files behind its settings."""

import ast
from pathlib import Path

import pytest
import yaml

from pipeline.compose import compose, shipped, sources
from pipeline.experiment.closure import ROOT, closure
from pipeline.experiment.stage import Stage
from pipeline.experiment.stages import STAGES
from pipeline.experiment.work import Work

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
ROOMS = ("pipeline", "stages")


def fill(text: str, model: str = PARAMS["models"][-1]) -> str:
    for key, value in PARAMS.items():
        text = text.replace(f"${{{key}}}", str(value))
    return text.replace("${item.model}", model)


def names(entries: list) -> list[str]:
    """What a list of dvc.yaml names, without the options."""
    return [fill(entry if isinstance(entry, str) else next(iter(entry))).rstrip(":") for entry in entries]


def words(stage: Stage, model: str = PARAMS["models"][-1]) -> list[str]:
    return [part for part in fill(DVC[stage.name]["cmd"], model).split() if "=" in part]


def work_of(stage: Stage) -> Work:
    return Work(stage, compose(words(stage)))


def covered(path: Path, deps: list[str]) -> bool:
    return any(path == ROOT / dep or ROOT / dep in path.parents for dep in deps)


def says_something(path: Path) -> bool:
    """Whether a file is more than a docstring."""
    body = ast.parse(path.read_text()).body if path.suffix == ".py" else ["data"]
    return len(body) > 1 or not all(isinstance(node, ast.Expr) for node in body)


CACHED = [stage for stage in STAGES if not stage.on_request]  # a study keeps its trials itself
each_stage = pytest.mark.parametrize("stage", CACHED, ids=lambda stage: stage.name)


def test_the_stages_are_the_pipelines_in_its_order():
    assert list(DVC) == [stage.name for stage in CACHED]


@each_stage
def test_the_command_runs_the_stage_and_chooses_every_group_of_its_settings(stage):
    assert DVC[stage.name]["cmd"].split()[:3] == ["python", "-m", stage.module]
    assert ("matrix" in DVC[stage.name]) == (stage.scope == "model")
    chosen = {word.partition("=")[0] for word in words(stage)}
    groups = {entry.partition(".")[0] for entry in (*stage.settings, *stage.also)}
    assert groups <= chosen, "a default in conf/config.yaml or in a scale could choose another file unseen"


@each_stage
def test_deps_are_the_code_that_the_stage_loads(stage):
    files = closure([ROOT / f"stages/{stage.name}.py"], loaded=True)
    deps = [dep for dep in names(DVC[stage.name]["deps"]) if dep.startswith(ROOMS)]
    lacking = sorted(str(path.relative_to(ROOT)) for path in files if says_something(path) and not covered(path, deps))
    assert not lacking, "dvc.yaml lacks these deps"
    for dep in deps:
        inside = list((ROOT / dep).rglob("*.py")) or [ROOT / dep]
        used = [path for path in inside if path in files]
        assert len(used) >= len(inside) / 2, f"{dep}: the stage loads {len(used)} of {len(inside)} files; name those"


@each_stage
@pytest.mark.parametrize("model", PARAMS["models"])
def test_the_config_files_behind_the_settings_are_named(stage, model):
    config = compose(words(stage, model))
    wanted = {path for entry in (*stage.settings, *stage.also) for path in files_of(config, entry.partition(".")[0])}
    if stage.resolve:  # models of the grid and, in a projection, what the fit reads
        benchmarks = [config.benchmark, shipped("benchmark", config.reference.ttft_benchmark)]
        for benchmark in benchmarks[: 2 if "reference" in stage.settings else 1]:
            wanted |= {
                path
                for shape in benchmark.shapes
                for architecture in shape.models
                for tp_size in benchmark.tp_sizes
                for path in sources("model", shape.model_name(architecture, tp_size))
            }
    entries = [*DVC[stage.name]["params"], *DVC[stage.name]["deps"]]
    named = [fill(entry if isinstance(entry, str) else next(iter(entry)), model).rstrip(":") for entry in entries]
    conf = [name for name in named if name.startswith("conf/")]
    assert not [path for path in wanted if not covered(path, conf)], "dvc.yaml lacks these params"
    for name in conf:
        assert any(covered(path, [name]) for path in wanted) or name == f"conf/model/{PARAMS['base']}.yaml", name


def files_of(config, group: str) -> list[Path]:
    return sources(group, getattr(config, group).name)


@each_stage
def test_outputs_and_inputs_are_the_stages(stage):
    work = work_of(stage)
    written = [name for kind in ("outs", "metrics", "plots") for name in names(DVC[stage.name].get(kind, []))]
    outputs = [str(path) for path in work.paths(*stage.outputs)]
    for path in outputs:
        assert any(path == out or path.startswith(f"{out}/") for out in written), path
    for out in written:
        assert out in outputs, f"{out} is not what the stage writes"
    assert {str(path) for path in work.paths(*stage.inputs)} <= set(names(DVC[stage.name]["deps"]))


@each_stage
def test_everything_it_names_exists(stage):
    for name in names([*DVC[stage.name]["deps"], *DVC[stage.name]["params"]]):
        if name.startswith((*ROOMS, "conf")):
            assert (ROOT / name).exists(), name
