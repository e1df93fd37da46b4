"""The committed reference study: whole, and what README, docs and the demo say is what its own runs say."""

from pathlib import Path

import pytest

from pipeline.compose import model_config, shipped, shipped_study
from pipeline.models import count
from pipeline.report.blocks import REFERENCE
from pipeline.report.same_tokens_blocks import STUDY
from pipeline.results import QualityResult, SearchResult, TradeResult, read
from pipeline.study.quality import cells, laws

FOLDER = REFERENCE / STUDY
DEMO = {  # demo models by the arm whose recipe they have
    "standard": ("demo_standard",),
    "parallel": ("demo_parallel",),
    "kraken_2way": ("demo_kraken_2way",),
    "kraken_4way": ("demo_kraken_4way", "demo_kraken_6way"),
    "ladder": ("demo_ladder",),
    "desync_4way": ("demo_desync_4way",),
    "parallel_track_4way": ("demo_parallel_track_4way",),
}


@pytest.fixture(scope="module")
def quality() -> QualityResult:
    return read(FOLDER / "quality.json", QualityResult)


@pytest.fixture(scope="module")
def search() -> SearchResult:
    return read(FOLDER / "search.json", SearchResult)


def test_the_demo_trains_with_what_the_search_found(search: SearchResult) -> None:
    for arm, names in DEMO.items():
        (found,) = (one for one in search.recipes if one.arm == arm)
        for name in names:
            model = model_config(name)
            assert (model.recipe.learning_rate, model.init_std) == (found.learning_rate, found.init_std), name


def test_the_recipes_are_the_best_of_their_trials(search: SearchResult) -> None:
    for one in search.recipes:
        ended = [trial for trial in search.trials if trial.arm == one.arm and trial.loss_nats is not None]
        best = min(ended, key=lambda trial: trial.loss_nats or 0.0)
        assert (one.learning_rate, one.init_std, one.loss_nats) == (best.learning_rate, best.init_std, best.loss_nats)


def test_cells_and_laws_follow_from_the_runs(quality: QualityResult) -> None:
    assert quality.cells == cells(quality.runs, quality.models, quality.baseline)
    assert quality.laws == laws(quality.runs, quality.models)


def test_it_is_the_study_that_is_shipped(quality: QualityResult, search: SearchResult) -> None:
    study, sweep = shipped_study("same_tokens"), shipped("sweep", "cpu")
    assert study is not None
    assert {model.arm for model in quality.models} == set(study.arms)
    assert sorted({run.tokens for run in quality.runs}) == sweep.tokens  # type: ignore[attr-defined]
    assert len({run.seed for run in quality.runs}) == sweep.n_seeds  # type: ignore[attr-defined]
    assert search.learning_rates == sweep.learning_rates  # type: ignore[attr-defined]


def test_models_are_within_1_percent_of_their_budget(quality: QualityResult) -> None:
    standard = {model.size: model for model in quality.models if model.arm == "standard"}
    for model in quality.models:
        mine, theirs = (
            (one.parameters if model.budget == "all" else one.layer_parameters) for one in (model, standard[model.size])
        )
        assert abs(mine / theirs - 1) <= 0.01, model
    assert standard["s"].parameters == count.parameters(model_config("demo_standard"))


def test_every_file_says_where_it_was_made() -> None:
    for name, kind in (("search", SearchResult), ("quality", QualityResult), ("trade", TradeResult)):
        provenance = read(FOLDER / f"{name}.json", kind).provenance
        assert provenance is not None
        assert provenance["device"]["cpu"] and provenance["commit"] and provenance["versions"]["torch"]
        assert not any(str(Path.home()) in path or path.startswith("/") for path in provenance["inputs"])
