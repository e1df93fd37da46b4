"""dvc.yaml against the stage list and the groups each stage composes."""

from pathlib import Path

import pytest
import yaml

from pipeline.compose import compose
from pipeline.config.schema import IDENTITY_GROUPS
from pipeline.experiment.stages import STAGES, Stage

ROOT = Path(__file__).resolve().parents[2]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# project_ttft is of the paper's grid whatever is timed here
BENCHMARK = {"project_ttft": PARAMS["projection"]}


def fill(text: str, stage: str) -> str:
    for key, value in PARAMS.items():
        text = text.replace(f"${{{key}}}", str(value))
    return text.replace("${item.model}", PARAMS["models"][-1])


def config_of(stage: Stage):
    command = fill(DVC[stage.name]["cmd"], stage.name).split()
    return compose([part for part in command if "=" in part])


def test_the_stages_are_the_pipelines_in_its_order():
    assert list(DVC) == [stage.name for stage in STAGES]


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_the_command_runs_the_stage(stage):
    assert DVC[stage.name]["cmd"].split()[:3] == ["python", "-m", stage.module]
    assert ("matrix" in DVC[stage.name]) == (stage.scope == "model")


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_params_are_the_groups_the_stage_composes(stage):
    named = {key for entry in DVC[stage.name]["params"] for key in ([entry] if isinstance(entry, str) else entry)}
    groups = {Path(name.rstrip(":")).parent.name for name in named}
    assert groups == set(stage.groups) - OPTIONAL.get(stage.name, set())
    for name in named:
        assert (ROOT / fill(name.rstrip(":"), stage.name)).exists(), name


OPTIONAL = {"benchmark_ttft": {"link"}}  # link=loopback names no sweep


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_outputs_and_inputs_are_the_stages(stage):
    config = config_of(stage)
    written = [
        fill(entry if isinstance(entry, str) else next(iter(entry)), stage.name)
        for kind in ("outs", "metrics")
        for entry in DVC[stage.name].get(kind, [])
    ]
    for path in map(str, stage.paths(stage.outputs, config)):
        assert any(path == out or path.startswith(f"{out}/") for out in written), path
    for path in map(str, stage.paths(stage.inputs, config)):
        assert path in [fill(dep, stage.name) for dep in DVC[stage.name]["deps"]], path


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_every_library_file_it_names_exists(stage):
    for dep in DVC[stage.name]["deps"]:
        if dep.startswith(("pipeline", "stages")):
            assert (ROOT / dep).exists(), dep


def test_stage_groups_are_identity_groups():
    for stage in STAGES:
        assert set(stage.groups) <= set(IDENTITY_GROUPS)
