"""The grid of a benchmark: which model stands for which architecture, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from pipeline.benchmark import launches
from pipeline.benchmark.grid import Cell, Models, expand
from pipeline.benchmark.kept import CellAnswer
from pipeline.benchmark.progress import Progress
from pipeline.compose import compose, group_options, model_config, shipped
from pipeline.config.benchmark import BenchmarkConfig, architecture_of
from pipeline.errors import ConfigError, RunError
from pipeline.models import Placement, build_model
from pipeline.models.architectures import block_of

# Paper Table 4 and its neighbours: n_layer timed, n_head, n_embd
TABLE_4 = {
    "1.3B": ("1_3b", 24, 16, 2048),
    "6.7B": ("6_7b", 32, 32, 4096),
    "13B": ("13b", 40, 40, 5120),
    "65B": ("65b", 20, 64, 8192),
    "175B": ("175b", 24, 96, 12288),
}


def grid(name: str, **changes: Any) -> dict[int, list[Models]]:
    return expand(changed(name, **changes), model_config)


def changed(name: str, **changes: Any) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(shipped("benchmark", name).model_dump() | changes)


@pytest.mark.parametrize("name", ["ttft_paper", "ttft_one_rank"])
def test_neighbours_of_a_published_size_have_its_standard_shape(name: str) -> None:
    found = grid(name)
    assert {tp_size: [models.size for models in sizes] for tp_size, sizes in found.items()} == {
        4: list(TABLE_4),
        8: list(TABLE_4),
    }
    for tp_size, sizes in found.items():
        for models in sizes:
            part, n_layer, n_head, n_embd = TABLE_4[models.size]
            ways = {"desync": tp_size, "parallel_track": tp_size}
            for architecture in ("standard", "parallel", "ladder", "desync", "parallel_track", "standard_split"):
                model = models.by_architecture[architecture]
                suffix = f"_{tp_size}way" if architecture in ways else ""
                assert model.name == f"{architecture}_{part}{suffix}"
                assert (model.n_layer, model.n_head, model.n_embd) == (n_layer, n_head, n_embd)
                assert model.n_ways == ways.get(architecture, 1)
                assert (model.block_size, model.vocab_size, model.ffn_expansion) == (2048, 51200, 4)
            kraken = models.by_architecture["kraken"]
            assert (kraken.name, kraken.n_ways, kraken.n_layer) == (f"kraken_{part}_{tp_size}way", tp_size, n_layer)


@pytest.mark.parametrize("name", group_options("benchmark"))
def test_every_model_of_every_grid_builds_on_a_rank(name: str) -> None:
    benchmark = shipped("benchmark", name)
    assert isinstance(benchmark, BenchmarkConfig)
    for tp_size, sizes in expand(benchmark, model_config).items():
        for models in sizes:
            assert list(models.by_architecture) == benchmark.architectures
            for architecture, model in models.by_architecture.items():
                assert model.architecture == architecture_of(architecture)
                build_model(model, Placement(tp_size - 1, tp_size), seed=None, device="meta")


def test_a_trained_neighbour_is_the_model_of_its_config() -> None:
    trained = set(group_options("model"))
    met = set()
    for name in ("ttft_demo", "ttft_cpu"):
        for sizes in grid(name).values():
            for model in sizes[0].by_architecture.values():
                if model.name in trained:
                    assert model.identity() == model_config(model.name).identity(), model.name
                    met.add(model.name)
    assert met >= {"demo_parallel", "demo_ladder", "demo_desync_4way", "demo_parallel_track_4way", "desync_124m_4way"}


def test_a_schedule_takes_the_weights_of_what_it_schedules() -> None:
    (models,) = grid("ttft_demo", tp_sizes=[4])[4]
    assert models.weights_of("standard_split") == "demo_standard"
    assert {models.weights_of(name) for name in models.by_architecture if block_of(name).weights_of is None} == {
        model.name for name, model in models.by_architecture.items() if name != "standard_split"
    }


def test_overrides_compose_the_model() -> None:
    (models,) = grid("ttft_cpu", tp_sizes=[2])[2]
    for architecture, model in models.by_architecture.items():
        composed = compose([*models.overrides(architecture), "data.tokenizer_vocab_size=4096"]).model
        assert (composed.name, composed.identity()) == (model.name, model.identity())


def test_fields_of_a_derived_model_are_the_benchmarks() -> None:
    (models,) = grid("ttft_demo", tp_sizes=[2], derived={"parallel_track": {"track_depth": 4}})[2]
    assert models.by_architecture["parallel_track"].track_depth == 4
    assert models.by_architecture["desync"].track_depth == 1


def test_fewer_architectures_can_be_asked_for() -> None:
    config = compose(["benchmark.architectures=[standard,kraken]"])
    for sizes in expand(config.benchmark, model_config).values():
        assert list(sizes[0].by_architecture) == ["standard", "kraken"]


def test_a_label_is_an_architecture_and_a_word_more() -> None:
    labels = ["standard", "kraken", "kraken_flops", "parallel_track_short"]
    shape = {"size": "demo", "models": {"standard": "demo_standard", "kraken": "demo_kraken_{tp_size}way"}}
    shape["models"]["kraken_flops"] = "demo_kraken_6way"
    derived = {"parallel_track_short": {"track_depth": 1}}
    (models,) = grid("ttft_demo", architectures=labels, shapes=[shape], derived=derived, tp_sizes=[2])[2]
    assert list(models.by_architecture) == labels
    assert models.by_architecture["kraken_flops"].name == "demo_kraken_6way"
    short = models.by_architecture["parallel_track_short"]
    assert (short.architecture, short.track_depth, short.name) == (
        "parallel_track",
        1,
        "demo_parallel_track_short_2way",
    )
    assert models.overrides("kraken_flops") == ["model=demo_kraken_6way"]


@pytest.mark.parametrize(
    ("label", "architecture"),
    [
        ("kraken", "kraken"),
        ("kraken_flops", "kraken"),
        ("standard_split", "standard_split"),
        ("standard_int8", "standard"),
        ("standard_split_int8", "standard_split"),
        ("parallel_track_int8", "parallel_track"),
        ("parallel_tracks", "parallel"),
        ("krakens", "krakens"),
    ],
)
def test_the_longest_name_that_fits_is_the_architecture(label: str, architecture: str) -> None:
    assert architecture_of(label) == architecture


SHAPE = {"size": "demo", "models": {"standard": "demo_standard", "kraken": "demo_kraken_{tp_size}way"}}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            ["benchmark.architectures=[kraken,standard]"],
            ["architectures=['kraken', 'standard']", "begin with standard"],
        ),
        (["benchmark.architectures=[standard,ladder,ladder]"], ["'ladder', 'ladder']: must name each once"]),
        (["benchmark.architectures=[]"], ["architectures=[]", "begin with standard"]),
        (["benchmark.shapes=[]"], ["benchmark.shapes=[]", "must not be empty"]),
        (["benchmark.shapes=[{size: a, models: {kraken: demo_kraken_4way}}]"], ["shapes a", "must name a standard"]),
        (["benchmark.shapes=[{size: a}]"], ["benchmark.shapes.0.models: missing"]),
        (["benchmark.shapes=[{size: a, model: {}}]"], ["benchmark.shapes.0.model: no such key"]),
        (["+benchmark.derived.kraken.n_embd=64"], ["derived.kraken", "a model of its own"]),
    ],
)
def test_a_grid_that_says_too_little_is_refused_when_composed(overrides: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"architectures": ["standard", "krakn"]}, ["demo krakn", "no such architecture; did you mean kraken?"]),
        ({"shapes": [SHAPE | {"models": SHAPE["models"] | {"krakn": "x"}}]}, ["krakn is no architecture"]),
        ({"shapes": [SHAPE | {"models": {"standard": "demo_standard"}}]}, ["kraken", "name its model"]),
        (
            {"shapes": [SHAPE | {"models": SHAPE["models"] | {"standard": "demo_standrd"}}]},
            ["did you mean demo_standard?"],
        ),
        ({"shapes": [SHAPE | {"models": SHAPE["models"] | {"ladder": "demo_parallel"}}]}, ["is parallel, not ladder"]),
        (
            {"derived": {"parallel_track": {"track_dept": 2}}},
            ["derived.parallel_track", "did you mean track_depth?"],
        ),
        ({"derived": {"ladder": {"n_ways": 2}}}, ["a ladder model has one way"]),
        ({"derived": {"laddr": {"n_layer": 2}}}, ["benchmark.derived: laddr is no architecture"]),
        ({"architectures": ["standard", "ladder_again"]}, ["ladder_again is ladder", "benchmark.derived.ladder_again"]),
        (
            {"shapes": [SHAPE | {"models": SHAPE["models"] | {"standard_split_x": "demo_standard"}}]}
            | {"architectures": ["standard", "standard_split_x"]},
            ["is standard, not standard_split"],
        ),
        ({"derived": {"parallel_track": {"architecture": "ladder"}}}, ["derived.parallel_track.architecture=ladder"]),
        ({"derived": {"parallel_track": {"name": "other"}}}, ["derived.parallel_track.name=other", "leave it out"]),
        ({"derived": {"parallel_track": {"n_ways": 1}}}, ["derived.parallel_track.n_ways=1"]),
        ({"tp_sizes": [3]}, ["demo standard", "tp_size=3: must divide the 4 heads", "1, 2, 4 would be"]),
        ({"contexts": [512]}, ["benchmark.contexts=512", "256 or fewer"]),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused_with_one_message(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        grid("ttft_demo", **changes)
    text = str(caught.value)
    assert text.startswith("this benchmark cannot be run:\n")
    assert all(part in text for part in parts), text


def test_one_unknown_model_is_one_fault() -> None:
    shape = SHAPE | {"models": SHAPE["models"] | {"standard": "demo_standrd"}}
    with pytest.raises(ConfigError) as caught:
        grid("ttft_demo", shapes=[shape])
    assert str(caught.value).count("\n") == 1


def test_a_module_that_no_rule_shards_is_refused_with_random_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    block = block_of("ladder")
    plain = block.__init__

    def gated(self: Any, *arguments: Any) -> None:
        plain(self, *arguments)
        self.gate = nn.Linear(4, 4)

    monkeypatch.setattr(block, "__init__", gated)
    model = model_config("demo_ladder")
    assert hasattr(build_model(model).blocks[0], "gate")  # whole, it is a model like any other
    with pytest.raises(ConfigError, match=r"architecture=ladder: no rule to shard its parameter blocks\.0\.gate"):
        build_model(model, Placement(1, 2))
    with pytest.raises(ConfigError, match=r"demo ladder: .*parameter blocks\.0\.gate") as caught:
        grid("ttft_demo")
    assert str(caught.value).count("\n") == 1


def test_ranks_that_disagree_are_an_error_that_names_the_architecture() -> None:
    answer = {"details": {"standard": {"peak_memory_bytes": 1, "ranks_agree": True}}}
    odd = {"details": answer["details"] | {"ladder": {"peak_memory_bytes": 1, "ranks_agree": False}}}
    benchmark = changed("ttft_demo", breakdown=False, trace=False)
    models = grid("ttft_demo", tp_sizes=[2])[2][0]
    unit = launches.Unit(2, [models], ["loopback"])
    launch = launches.Launch(benchmark, compose([]).cluster, unit, {}, Progress(lambda line: None, 1), 0)
    rounds = {"samples_ms": {"standard/overlapped": [1.0]}, "seconds": 1.0, "warmup_rounds": 1}
    where = (Cell(8, 1), CellAnswer("demo", 8, 1, "loopback", 0.0, False, None))
    launch._measure(SimpleNamespace(command=lambda *_, **__: [answer | rounds] * 2), *where)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="ladder: the 2 ranks sampled different tokens"):
        launch._measure(SimpleNamespace(command=lambda *_, **__: [odd | rounds] * 2), *where)  # type: ignore[arg-type]
