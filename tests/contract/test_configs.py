"""Every shipped configuration composes, checks, and builds on the meta device."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from pipeline.compose import CONF, compose, compose_raw, group_options, model_config
from pipeline.config import Config
from pipeline.experiment.experiment import load
from pipeline.models import Placement, build_model
from pipeline.models.placement import head_dim

SCALES = group_options("scale")
NEEDS_A_SOURCE = {"local": "data.source=[text]", "nanogpt": "data.source=[bins]"}


def groups() -> list[str]:
    return sorted(path.name for path in CONF.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", group_options("model"))
def test_every_model_builds_on_every_rank(name):
    config = model_config(name)
    assert config.name == name
    sizes = [config.n_ways] if config.n_ways > 1 else [1, 4]
    for tp_size in sizes:
        model = build_model(config, Placement(tp_size - 1, tp_size), device="meta")
        assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_composes(scale):
    model = "demo_standard" if scale == "demo" else "standard_124m"
    assert compose([f"scale={scale}", f"model={model}"]).scale.name == scale


OTHER_GROUPS = [g for g in groups() if g not in ("experiment", "model", "scale", "paths")]


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in OTHER_GROUPS for n in group_options(g)])
def test_every_option_composes(group, name):
    overrides = ["scale=paper", "model=standard_124m", "cluster.micro_batch_size=1", "cluster.num_workers=1"]
    overrides.append(f"{group}={name}")
    if group == "data":
        overrides = ["model=standard_124m", f"data={name}", *([NEEDS_A_SOURCE[name]] if name in NEEDS_A_SOURCE else [])]
    config = compose(overrides)
    assert getattr(config, group).name == name


@pytest.mark.parametrize("name", group_options("experiment"))
def test_every_experiment_loads_at_every_scale_it_names(name):
    raw = compose_raw([f"+experiment={name}"])
    assert raw["experiment"]["name"] == name
    for scale, models in raw["experiment"]["models"].items():
        experiment = load([f"+experiment={name}", f"scale={scale}"])
        assert [config.model.name for config in experiment.configs] == models
        assert experiment.stages


def test_the_tables_are_of_the_papers_models():
    """One list, inherited: a published table has every model of the paper."""
    paper = compose_raw(["+experiment=paper"])["experiment"]
    for table in ("table1", "table3"):
        experiment = compose_raw([f"+experiment={table}"])["experiment"]
        assert experiment["models"] == paper["models"]
        assert experiment["stages"] and "stages" not in paper


def test_the_models_the_project_promises_are_there():
    promised = {
        *(f"{a}_{s}" for a in ("standard", "parallel") for s in ("124m", "355m", "760m")),
        *(f"kraken_124m_{n}way" for n in (2, 4, 6)),
        *(f"kraken_355m_{n}way" for n in (2, 4)),
        "kraken_760m_4way",
        *(f"demo_{m}" for m in ("standard", "parallel", "kraken_2way", "kraken_4way")),
        *("demo_ladder", "demo_desync_4way", "demo_parallel_track_4way"),
        *("ladder_124m", "desync_124m_4way", "parallel_track_124m_4way"),
        *(f"standard_{s}" for s in ("1_3b", "6_7b", "13b", "65b", "175b")),
        *(f"kraken_{s}_{n}way" for s in ("1_3b", "6_7b", "13b", "65b", "175b") for n in (4, 8)),
    }
    assert promised <= set(group_options("model"))
    assert {"kraken_tp2", "kraken_tp4", "kraken_tp6", "kraken_tp8", "table1", "table3", "ttft_grid", "paper"} <= set(
        group_options("experiment")
    )


def test_demo_models_have_equal_parameter_counts():
    from pipeline.models import count

    counts = {n: count.parameters(model_config(n)) for n in group_options("model") if n.startswith("demo_")}
    assert max(counts.values()) / min(counts.values()) < 1.02, counts


def test_table_4_head_sizes_are_the_papers():
    for size in ("1_3b", "6_7b", "13b", "65b", "175b"):
        for n_ways in (4, 8):
            assert head_dim(model_config(f"kraken_{size}_{n_ways}way")) in (72, 96, 104, 128)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_named_file_bears_its_own_name(path: Path):
    body = yaml.safe_load(path.read_text())
    if path.parent.name in ("scale", "experiment"):
        body = body[path.parent.name]
    if "name" in body and path.parent.name not in ("engine",):
        assert body["name"] == path.stem


def test_every_field_says_what_it_means():
    missing = []

    def walk(schema: type[BaseModel], prefix: str) -> None:
        for name, field in schema.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                walk(kind, f"{prefix}{name}.")
            elif not field.description and schema is not Config:
                missing.append(prefix + name)

    walk(Config, "")
    assert not missing
