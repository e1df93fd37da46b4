"""Files of a group that inherit: what Hydra composes, what `shipped` reads, and what neither may take."""

from pathlib import Path

import pytest
import yaml

from pipeline import compose as composing
from pipeline.compose import CONF, compose_raw, group_options, shipped, sources
from pipeline.config.parsing import parse_group
from pipeline.errors import ConfigError

HEIRS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("scale", "experiment") and "defaults" in yaml.safe_load(path.read_text())
]


@pytest.mark.parametrize(("group", "name"), HEIRS)
def test_an_heir_is_what_hydra_makes_of_it(group: str, name: str) -> None:
    raw = compose_raw([f"{group}={name}"])[group]
    assert shipped(group, name) == parse_group(group, raw, name)


def test_every_option_is_read_without_an_override() -> None:
    groups = [path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("scale", "experiment")]
    for group in groups:
        for name in group_options(group):
            values = shipped(group, name).model_dump()
            assert values.get("name", name) == name, f"{group}/{name}"


def test_no_size_is_written_twice() -> None:
    """Only a size's standard model says how deep, long and wide in words it is; gpt2_large has a depth of its own.

    A standard model of another length is a size of its own, and takes the rest of another's.
    """
    own = {"n_layer", "block_size", "vocab_size"}
    for path in sorted((CONF / "model").glob("*.yaml")):
        body = yaml.safe_load(path.read_text())
        if "defaults" in body and not path.stem.startswith("gpt2") and "standard" not in path.stem:
            assert not own & set(body), path.stem


def test_sources_are_the_parents_first() -> None:
    assert [path.name for path in sources("model", "kraken_124m_4way")] == [
        "standard_124m.yaml",
        "kraken_124m_4way.yaml",
    ]
    assert [path.name for path in sources("benchmark", "ttft_one_rank")] == ["ttft_paper.yaml", "ttft_one_rank.yaml"]
    assert sources("model", "demo_standard") == [CONF / "model" / "demo_standard.yaml"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An empty conf/link that `shipped` reads instead of the project's."""
    monkeypatch.setattr(composing, "CONF", tmp_path)
    for cached in (composing.group_options, composing.shipped, composing._body):
        cached.cache_clear()
    (tmp_path / "link").mkdir()
    yield tmp_path / "link"
    for cached in (composing.group_options, composing.shipped, composing._body):
        cached.cache_clear()


def test_later_files_win_field_by_field(folder: Path) -> None:
    (folder / "slow.yaml").write_text("name: slow\nlinks: [1mbit]\n")
    (folder / "named.yaml").write_text("defaults: [slow, _self_]\nname: named\n")
    (folder / "fast.yaml").write_text("defaults: [named, _self_]\nname: fast\nlinks: [9gbit]\n")
    assert shipped("link", "named").model_dump() == {"name": "named", "links": ["1mbit"]}
    assert shipped("link", "fast").model_dump() == {"name": "fast", "links": ["9gbit"]}
    assert [path.stem for path in sources("link", "fast")] == ["slow", "named", "fast"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "defaults: [slo, _self_]\nname: a\n",
            r"conf/link/a\.yaml: defaults: link=slo: no such link; did you mean slow?",
        ),
        ("defaults: [a, _self_]\nname: a\n", r"conf/link/a\.yaml: inherits itself"),
        ("defaults: [slow, _self_]\nname: a\nspeed: 3\n", r"conf/link/a\.yaml: link\.speed: no such key"),
        ("defaults: [slow, _self_]\nname: a\nlinks: [9]\n", r"link\.links\.0=9: must be text"),
    ],
)
def test_what_cannot_be_inherited_is_named(folder: Path, body: str, message: str) -> None:
    (folder / "slow.yaml").write_text("name: slow\nlinks: [1mbit]\n")
    (folder / "a.yaml").write_text(body)
    with pytest.raises(ConfigError, match=message):
        shipped("link", "a")
