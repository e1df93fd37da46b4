"""Every field of every group: it determines some stage's result, or is on the list of those that determine none."""

import ast
import itertools
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.experiment.closure import AHEAD, ROOT
from pipeline.experiment.identity import EXECUTION, OPEN_GROUPS, UndeclaredSettingError, is_execution
from pipeline.experiment.stage import Stage
from pipeline.experiment.stages import BY_NAME, STAGES
from pipeline.experiment.work import Work

BASES = {
    "demo": [
        "+experiment=kraken_tp4",
        "benchmark.contexts=[128]",
        "benchmark.derived={parallel_track: {track_depth: 2}}",
        "benchmark.wires=[float32,int8]",
        "benchmark.wire_errors={size: demo, models: {standard: demo_standard, kraken: demo_kraken_4way}}",
    ],
    "one_rank": ["benchmark=ttft_one_rank", "benchmark.contexts=[128]", "benchmark.tp_sizes=[4]"],
    "engines": ["benchmark=ttft_engines", "benchmark.contexts=[128]"],
    "study": [
        "+experiment=ablation_init",
        "model=demo_standard",
        "benchmark.contexts=[128]",
        "~sweep.sizes.s",
        "sweep.sizes.xs.n_embd=96",
    ],
    "checkpoint": [
        "model=gpt2",
        "data=openwebtext",
        "evaluation.checkpoint=hub",
        "evaluation=lm_eval",
        "tasks=[a]",
        "benchmark.contexts=[8]",
    ],
}
CONFIGS = {name: compose(overrides) for name, overrides in BASES.items()}
# fields of which one value fits another: not any value of the type is one
OTHER_VALUES: dict[str, Any] = {
    "benchmark.architectures": ["standard", "kraken"],
    "benchmark.contexts": [64],
    "benchmark.tp_sizes": [4, 4],
    "benchmark.decode_contexts": [32],
    "benchmark.derived": {},
    "benchmark.shapes.models": {"standard": "standard_6_7b", "kraken": "kraken_6_7b_4way"},
    "benchmark.shapes.n_layer": 1,
    "benchmark.wire_errors.n_layer": 1,
    "benchmark.wire_errors.models": {"standard": "standard_124m", "kraken": "cpu_kraken_{tp_size}way"},
    "link.links": ["1gbit"],
    "reference.ttft_benchmark": "ttft_mark",
    "study.arms.model": {"architecture": "kraken", "n_ways": 2, "ffn_expansion": 2},
    "sweep.sizes.model": "standard_124m",
    "sweep.sizes.n_layer": 4,
    "sweep.sizes.n_head": 2,
    "sweep.sizes.n_embd": 128,
    "sweep.head_multiple": 2,
}
STAGES_OF = {name: [one for one in STAGES if config.study or not one.on_request] for name, config in CONFIGS.items()}


def fields(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field, of what is nested and of the first of a list too."""
    for name, value in model:
        inner = next(iter(value.values() if isinstance(value, dict) else value)) if is_filled(value) else value
        if isinstance(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_filled(value: Any) -> bool:
    return isinstance(value, list | dict) and bool(value)


def annotation_of(path: str) -> Any:
    """The declared type of a dotted field."""
    kind: Any = Config
    for part in path.split("."):
        found = kind.model_fields[part].annotation
        groups = [one for one in (found, *get_args(found)) if isinstance(one, type) and issubclass(one, BaseModel)]
        kind = groups[0] if groups else found
    return kind


def another(path: str, value: Any) -> Any:
    """A value of the field's type that differs from `value`."""
    if path in OTHER_VALUES:
        return OTHER_VALUES[path]
    kind = annotation_of(path)
    choices = [one for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
    if choices:
        return next(choice for choice in get_args(choices[0]) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 0.5 if value else 0.25
    if isinstance(value, list):
        return [*value, 7 if "int" in str(kind) else "another"]
    if isinstance(value, dict):
        return {**value, "another": next(iter(value.values()), 1.0)}
    return 7 if value is None and int in get_args(kind) else f"{value} and more" if value else "another"


def replaced(model: Any, path: list[str], value: Any) -> Any:
    """A copy in which one field, of the first item where there is a list, has another value."""
    if isinstance(model, list):
        return [replaced(model[0], path, value), *model[1:]]
    if isinstance(model, dict):
        first = next(iter(model))
        return {**model, first: replaced(model[first], path, value)}
    name, *rest = path
    return model.model_copy(update={name: replaced(getattr(model, name), rest, value) if rest else value})


def holds(stage: Stage, config: Config, path: str) -> bool:
    """Whether a stage's declared settings hold a field."""
    return not is_execution(path) and any(f"{path}.".startswith(f"{entry}.") for entry in stage.declared(config))


ALL = [(name, path, value) for name, config in CONFIGS.items() for path, value in fields(config)]


@pytest.mark.parametrize(("base", "path", "value"), ALL, ids=[f"{base}-{path}" for base, path, _ in ALL])
def test_a_field_changes_the_fingerprints_that_hold_it_and_no_other(base, path, value):
    config = CONFIGS[base]
    changed = replaced(config, path.split("."), another(path, value))
    for stage in STAGES_OF[base]:
        differs = Work(stage, changed).fingerprint != Work(stage, config).fingerprint
        assert differs == holds(stage, config, path), stage.name


def test_every_field_is_in_some_fingerprint_or_on_the_list_with_a_reason():
    names = {path for _, path, _ in ALL}
    held = {path for base, path, _ in ALL if any(holds(stage, CONFIGS[base], path) for stage in STAGES_OF[base])}
    unset = {path for path in names if any(other.startswith(f"{path}.") for other in names)}  # in one, and not in all
    lacking = {path for path in names - held - unset if not is_execution(path)}
    assert not lacking, "declare these in pipeline/experiment/stages.py, or say in EXECUTION why they determine nothing"
    for entry, reason in EXECUTION.items():
        assert len(reason.split()) >= 3
        assert any(f"{path}.".startswith(f"{entry}.") for path in names), f"EXECUTION: {entry} is no field"


def test_no_fingerprint_declares_a_field_of_the_list():
    for stage, config in itertools.product(STAGES, CONFIGS.values()):
        assert not [entry for entry in stage.declared(config) if is_execution(entry)]


def test_all_fields_were_met():
    """A group that no base configuration fills, as an empty list of shapes, would be passed over."""
    met = {path for _, path, _ in ALL}

    def walk(kind: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in kind.model_fields.items():
            candidates = [field.annotation, *get_args(field.annotation)]
            groups = [one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)]
            yield from walk(groups[0], f"{prefix}{name}.") if groups else [f"{prefix}{name}"]

    assert not set(walk(Config, "")) - met


@pytest.mark.parametrize(
    ("stage", "overrides"),
    [
        ("benchmark_ttft", ["cluster.device=cuda"]),
        ("benchmark_ttft", ["cluster.threads_per_rank=1"]),
        ("benchmark_ttft", ["benchmark.transport=gloo"]),
        ("benchmark_ttft", ["benchmark=ttft_demo", "link=sweep"]),
        ("benchmark_ttft", ["benchmark=ttft_engines", "benchmark.engine=tensorrt_llm", "engine.environment=venv"]),
        ("project_ttft", ["benchmark.contexts=[128]"]),
        ("benchmark_ttft", ["benchmark=ttft_one_rank", "hardware=h100_sxm"]),
        ("benchmark_ttft", ["benchmark=ttft_one_rank", "reference.ttft_hardware=h100_sxm"]),  # what is fitted
        ("build_engine", ["engine.mode=segmented"]),
    ],
)
def test_fingerprint_follows_device_transport_engine_and_link(stage, overrides):
    named = [override for override in overrides if override.startswith("benchmark=")]
    before, after = (Work(BY_NAME[stage], compose(words)) for words in (named, overrides))
    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("stage", "overrides"),
    [
        ("benchmark_ttft", ["benchmark=ttft_engines", "model=demo_kraken_2way"]),
        ("benchmark_ttft", ["benchmark=ttft_engines", "link=sweep"]),
        ("benchmark_ttft", ["benchmark=ttft_one_rank", "link=sweep"]),
        ("project_ttft", ["benchmark.trace=false", "benchmark.repeats_max=90", "benchmark.time_limit_s=3"]),
        ("project_ttft", ["benchmark.weights=trained", "benchmark.transport=gloo"]),
    ],
)
def test_what_a_stage_does_not_read_changes_no_fingerprint(stage, overrides):
    named = [override for override in overrides if override.startswith("benchmark=")]
    before, after = (Work(BY_NAME[stage], compose(words)) for words in (named, overrides))
    assert before.settings == after.settings and before.fingerprint == after.fingerprint


def test_fingerprint_holds_the_shape_of_every_model_a_benchmark_names(tmp_path, monkeypatch):
    """conf/model/demo_standard.yaml edited: what times or projects it is stale, what names other models is not."""
    import shutil

    import yaml

    from pipeline import compose as composing

    shutil.copytree(composing.CONF, tmp_path / "conf")
    monkeypatch.setattr(composing, "CONF", tmp_path / "conf")

    def fingerprints() -> dict[str, str]:
        for cached in (composing.shipped, composing.model_config, composing._body):
            cached.cache_clear()
        timed = {name: Work(BY_NAME[name], compose([])).fingerprint for name in ("benchmark_ttft", "project_ttft")}
        other = Work(BY_NAME["benchmark_ttft"], compose(["benchmark=ttft_cpu"])).fingerprint
        model = Work(BY_NAME["train"], compose(["model=demo_parallel"])).fingerprint
        return {**timed, "cpu": other, "inherits": model}

    before = fingerprints()
    path = tmp_path / "conf/model/demo_standard.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "n_layer": 9}))
    after = fingerprints()
    monkeypatch.undo()
    for cached in (composing.shipped, composing.model_config, composing._body):
        cached.cache_clear()
    assert {name for name in before if before[name] != after[name]} == {"benchmark_ttft", "project_ttft", "inherits"}


def test_fingerprint_of_a_projection_holds_the_files_that_the_fit_reads():
    here = Work(BY_NAME["project_ttft"], compose(["benchmark=ttft_demo"])).settings
    elsewhere = Work(BY_NAME["project_ttft"], compose(["benchmark=ttft_demo", "hardware=h100_sxm"])).settings
    assert any("65B" in name for name in here["fitted models"])
    assert "fit" not in elsewhere


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_can_read_what_its_fingerprint_declares_and_nothing_else(stage):
    config = CONFIGS["demo"]
    seen = Work(stage, config).config
    for path, _ in fields(config):
        group, field = path.split(".")[0], path.split(".")[1] if "." in path else ""
        if group in OPEN_GROUPS or not field:
            continue
        whole = f"{group}.{field}"
        allowed = is_execution(whole) or any(entry in (group, whole) for entry in stage.declared(config))
        if allowed:
            assert getattr(getattr(seen, group), field) == getattr(getattr(config, group), field)
        else:
            with pytest.raises(UndeclaredSettingError, match=f"{stage.name} reads {whole}"):
                getattr(getattr(seen, group), field)


def test_the_fingerprint_guard_is_what_scripts_are_handed():
    """No stage script reaches for all settings but in what stands around its work."""
    for stage in STAGES:
        tree = ast.parse((ROOT / f"stages/{stage.name}.py").read_text())
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            names = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
            assert "composed" not in names or function.name in AHEAD, f"{stage.name}: {function.name}"
