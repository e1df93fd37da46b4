"""The models of a study: equal parameters at every shipped scale, the cells of a cross, and what cannot be."""

import sys

import pytest

from pipeline.compose import compose, experiments_with, model_config
from pipeline.config.model import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models.placement import head_dim
from pipeline.study import check
from pipeline.study.arms import Cell, cells, models
from stages import compare_quality, search_recipes
from stages.entry import launch
from tests.unit.study_trials import study, sweep

SCALES = ("demo", "cpu", "small_gpu", "paper")


def counted(model: ModelConfig) -> tuple[int, int]:
    """(all, in layers) parameters on paper: matrices and LayerNorms of every block, closing parts, tables."""
    d, ways = model.n_embd, model.n_ways
    matrices = 4 * d * d + 2 * model.ffn_expansion * d * d  # of a block, or of each of Kraken's ways
    if model.architecture == "kraken":
        layers = model.n_layer * ways * (matrices + 2 * d) + ways * d * d
    else:
        norms = 1 if model.architecture == "parallel" else 2 * ways
        layers = model.n_layer * (matrices + norms * d)
    tables = model.vocab_size * (1 if model.tie_embeddings else 2)
    tables += model.block_size if model.position == "learned" else 0
    return layers + d + tables * d, layers + d


@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_of_every_shipped_study_has_its_budget(scale):
    for experiment in experiments_with("study"):
        config = compose([f"+experiment={experiment}", f"scale={scale}"])
        found = models(config.study, config.sweep, model_config)
        expected = {
            (arm, size)
            for arm, body in config.study.arms.items()
            for size in config.sweep.sizes
            if body.sizes == "all" or size == config.sweep.central_size
        }
        assert set(found) == expected
        for (arm, size), model in found.items():
            shape = config.sweep.sizes[size]
            own = {key: value for key, value in shape.model_dump(exclude={"model"}).items() if value}
            base = model_config(shape.model).model_copy(update=own)
            which = 0 if config.study.arms[arm].budget == "all" else 1
            ours, budget = counted(model)[which], counted(base)[which]
            assert abs(ours / budget - 1) <= 0.01, (experiment, arm, size, ours, budget)
            assert model.name == f"{size}.{arm}"
            kept = ("n_layer", "block_size", "vocab_size", "init_std", "bias")
            assert [getattr(model, key) for key in kept] == [getattr(base, key) for key in kept]
            own_model = config.study.arms[arm].model
            assert {key: getattr(model, key) for key in own_model} == own_model
            if own_model:
                assert head_dim(model) % config.sweep.head_multiple == 0
            else:
                assert model == base.model_copy(update={"name": model.name})


def test_both_budgets_of_one_arm_are_both_met():
    kraken = {"architecture": "kraken", "n_ways": 2, "ffn_expansion": 2}
    both = study(standard={}, all={"model": kraken}, layers={"model": kraken, "budget": "layers"})
    wide = sweep(sizes={"xs": {"model": "demo_standard", "n_embd": 160}})
    found = models(both, wide, model_config)
    base = counted(found["standard", "xs"])
    for which, budget in enumerate(("all", "layers")):
        ours = counted(found[budget, "xs"])
        assert abs(ours[which] / base[which] - 1) <= 0.01 < abs(ours[1 - which] / base[1 - which] - 1)
    assert found["all", "xs"].n_embd > found["layers", "xs"].n_embd  # a narrow way has a small embedding


def faults(arms: dict[str, object], **changes: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        models(study(**arms), sweep(**changes), model_config)
    assert caught.value.exit_code == 2
    first, *lines = str(caught.value).splitlines()
    assert first == "this study cannot be run:"
    return lines


def test_everything_that_cannot_be_is_said_at_once_with_arm_and_size():
    arms = {
        "standard": {},
        "many": {"model": {"architecture": "kraken", "n_ways": 200}},
        "odd": {"model": {"architecture": "desync", "n_ways": 3}},
        "none": {"model": {"n_ways": 2}},
        "zero": {"model": {"architecture": "kraken", "n_ways": 0}},
        "typo": {"model": {"architecture": "krakn"}},
        "mean": {"model": {"mixing": "mean"}},
        "schedule": {"model": {"architecture": "standard_split"}},
    }
    lines = faults(arms, sizes={"xs": {"model": "demo_standard"}})
    told = {line.partition(" at size xs: ")[0].removeprefix("  - study.arms."): line for line in lines}
    assert len(lines) == len(arms) - 1 and set(told) == set(arms) - {"standard"}
    assert "no width is within 1% of the standard model's" in told["many"] and "the nearest, n_embd=" in told["many"]
    assert "n_ways=3 must divide the standard model's 4 heads" in told["odd"]
    assert "a standard model has one way, not 2" in told["none"]
    assert "model.n_ways: Input should be greater than 0" in told["zero"]
    assert "did you mean kraken?" in told["typo"]
    assert "only kraken models mix ways; sum would be right" in told["mean"]
    assert "has none of its own to train; train the standard model instead" in told["schedule"]


def test_one_thing_that_cannot_be_is_one_line():
    arms = study(standard={}, none={"model": {"n_ways": 2}})
    with pytest.raises(ConfigError) as caught:
        models(arms, sweep(), model_config)
    where = "this study cannot be run: study.arms.none at size xs"
    assert str(caught.value) == f"{where}: a standard model has one way, not 2"


def test_a_size_is_set_by_a_standard_model_that_can_be():
    sizes = {
        "a": {"model": "demo_kraken_4way"},
        "b": {"model": "demo_standard", "n_embd": 130},
        "xs": {"model": "demo_standard"},
        "c": {"model": "demo_standrd"},
    }
    kraken, width, unknown = faults({"standard": {}, "parallel": {"model": {"architecture": "parallel"}}}, sizes=sizes)
    assert "sweep.sizes.a: demo_kraken_4way is a kraken model; a size is set by a standard one" in kraken
    assert "sweep.sizes.b: model.n_embd=130: must be divisible by the 4 heads" in width
    assert "demo_standrd" in unknown and "demo_standard" in unknown


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("+study.arms.kraken_4way.model.n_embd=64", ["n_embd: follows from the size", "an arm may set architecture"]),
        ("+study.arms.kraken_4way.model.n_lay=2", ["n_lay: no such key of a model"]),
        ("study.baseline=standrd", ["baseline=standrd: no such arm; there are standard, parallel"]),
        ("+study.arms.standard.sizes=central", ["baseline=standard: must stand at every size"]),
        ("sweep.central_size=m", ["central_size=m: no such size; there are xs, s"]),
        ("sweep.tokens=[196608,98304]", ["tokens=[196608, 98304]: must ascend"]),
    ],
)
def test_a_study_that_is_none_is_a_config_error(override, parts):
    with pytest.raises(ConfigError) as caught:
        compose(["+experiment=same_tokens", override])
    assert all(part in str(caught.value) for part in parts), caught.value


def stage(script, words: list[str], monkeypatch, capsys) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["stage", *words])
    code = launch(script.run, "")
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.err.strip()


@pytest.mark.parametrize("script", [search_recipes, compare_quality])
def test_seeds_below_two_are_one_line_and_exit_2(script, monkeypatch, capsys, tmp_path):
    words = ["+experiment=same_tokens", "sweep.n_seeds=1", f"paths.results={tmp_path}", "tracking=none"]
    code, said = stage(script, words, monkeypatch, capsys)
    assert code == 2, said
    assert said.splitlines()[1:] == ["  - sweep.n_seeds=1: must be greater than or equal to 2"], said
    assert not list(tmp_path.iterdir())


def test_same_tokens_needs_a_study(monkeypatch, capsys, tmp_path):
    code, said = stage(search_recipes, [f"paths.results={tmp_path}", "tracking=none"], monkeypatch, capsys)
    assert code == 2 and "+experiment=NAME" in said, said


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("sweep.warmup_steps=96", "96 steps of warm-up leave none of 96 (98304 tokens); at most 24 would"),
        ("sweep.tokens=[98304,196609]", "sweep.tokens=196609: no whole number of steps of 1024 tokens; 196608 would"),
        ("sweep.rungs=8", "the first rung is 0.75 steps of 1024 tokens; a multiple of 131072 would fit"),
        ("training.decay_steps=90", "decay_steps=90"),
    ],
)
def test_steps_that_do_not_fit_are_known_before_any_work(override, part):
    config = compose(["+experiment=same_tokens", override])
    with pytest.raises(ConfigError) as caught:
        check.faults(config)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_cells_of_a_cross_and_of_a_full_grid():
    arms = study(standard={}, parallel={"model": {"architecture": "parallel"}}, inner={"sizes": "central"})
    sizes = {size: {"model": "demo_standard"} for size in ("s", "m", "l")}
    points = {"sizes": sizes, "tokens": [1, 2, 3], "central_size": "m", "central_tokens": 2}
    assert list(cells(arms, sweep(**points))) == [
        Cell("standard", "l", (2,)),
        Cell("parallel", "l", (2,)),
        Cell("standard", "m", (1, 2, 3)),
        Cell("parallel", "m", (1, 2, 3)),
        Cell("inner", "m", (1, 2, 3)),
        Cell("standard", "s", (2,)),
        Cell("parallel", "s", (2,)),
    ]
    full = list(cells(arms, sweep(**points, crossed=False)))
    assert {cell.tokens for cell in full} == {(1, 2, 3)} and len(full) == 7
