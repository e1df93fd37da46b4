"""What is wrong with a study is said before any trial: one line, with what would be right."""

import json
from pathlib import Path

import pytest

from pipeline import provenance
from pipeline.compose import compose, model_config
from pipeline.errors import ConfigError, PipelineError
from pipeline.experiment.experiment import load
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work, makers
from pipeline.study import check
from pipeline.study.arms import models
from pipeline.study.trials import Maker, Recipe
from tests.token_folder import write_token_folder

STUDY = "+experiment=ablation_init"
READ = {"data", "training", "study", "sweep"}  # the model that completes the configuration is none of the study's


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.learning_rate=1e-2"], "training.learning_rate=0.01: decided by sweep.learning_rates"),
        (["training.steps=90"], "training.steps=90: decided by sweep.tokens"),
        (["training.schedule=wsd"], "training.schedule=wsd: decided by the study"),
        (["training.seed=4294967294"], "the last is 4294967296; must be below 4294967296"),
        (["data.tokenizer_vocab_size=8192"], "more than the 4096 that the sizes' models have"),
        (
            ["sweep.sizes={s: {model: demo_standard}, t: {model: demo_standard, n_layer: 2}}", "sweep.central_size=s"],
            "as",
        ),
        (["sweep.sizes={t: {model: standard_124m}}"], "must have one block_size; there are 256, 1024"),
        (["sweep.reduction_factor=1.5", "sweep.rungs=3"], "a whole reduction factor would fit"),
        (["sweep.rungs=2000"], "sweep.rungs=2000: must be less than or equal to 20"),
        (["sweep.reduction_factor=1e300"], "must be less than or equal to 100"),
        (["sweep.n_seeds=3000000000"], "must be less than or equal to 1000"),
        (["sweep.n_seeds=1"], "sweep.n_seeds=1: must be greater than or equal to 2"),
        (["sweep.search_tokens=9000000000000000000"], "must be less than or equal to 1000000000000000"),
        (["sweep.learning_rates=[1e30]"], "must be less than or equal to 1000"),
        (["sweep.learning_rates=[]"], "sweep.learning_rates=[]: must not be empty"),
        (["sweep.central_size=q"], "no such size; there are xs, s"),
        (["sweep.central_tokens=7"], "must be one of tokens"),
        (["sweep.warmup_steps=500"], "leave none of"),
        (["sweep.tokens=[98304,100000]"], "no whole number of steps"),
        (["study.baseline=nobody"], "baseline=nobody: no such arm; there are kraken_4way"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_fault_is_said_before_any_trial(overrides: list[str], said: str) -> None:
    with pytest.raises(PipelineError) as caught:
        check.faults(compose(["model=standard_124m", STUDY, *overrides], READ))
    assert said in str(caught.value) and caught.value.exit_code == 2


def test_a_rate_that_follows_the_width_needs_sizes_that_are_not_searched() -> None:
    small_gpu = compose(["+experiment=ablation_rate", "scale=small_gpu", "model=standard_124m"])
    assert not small_gpu.sweep.search_every_size  # the shipped file says so: else its arms would be one and the same
    with pytest.raises(ConfigError, match="rate_width_exponent=1: says how a rate goes over"):
        check.faults(compose(["+experiment=ablation_rate", "model=demo_standard", "sweep.search_every_size=true"]))


def test_a_search_hears_of_every_rung_when_it_is_reached(tmp_path: Path) -> None:
    config = compose(["model=demo_standard", STUDY, "cluster.checkpoint_interval=20", f"paths.runs={tmp_path}/runs"])
    assert config.study is not None
    (arm, _), model = next(iter(models(config.study, config.sweep, model_config).items()))
    maker = Maker(config, write_token_folder(tmp_path), lambda architecture: {}, {})
    job = maker.search_trial("t", model, config.study.arms[arm], Recipe(1e-3, 0.02)).jobs[0]
    assert job.cluster.checkpoint_interval == job.training.eval_interval < job.training.steps
    whole = maker.trial("t", model, config.study.arms[arm], Recipe(1e-3, 0.02), (config.sweep.tokens[0],), 1).jobs[0]
    assert whole.cluster.checkpoint_interval == 20


@pytest.fixture
def compared(tmp_path: Path) -> Work:
    config = load([STUDY, f"paths.results={tmp_path}"]).config
    return Work(BY_NAME["compare_quality"], config)


def put(work: Work, **changes: object) -> None:
    """A search.json as the search's own work would leave it, but for `changes` of its provenance."""
    maker = next(one for one in makers(work.composed) if one.stage.name == "search_recipes")
    body = {"recipes": []}
    made_by = {"config_fingerprint": maker.fingerprint, "body": provenance.fingerprint(body), **changes}
    path = work.path("search")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**body, "provenance": made_by}))


def test_a_search_that_is_missing_is_one_line(compared: Work) -> None:
    with pytest.raises(ConfigError, match=r"search.json is missing: run python -m stages.search_recipes"):
        compared.begin()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"body": "0"}, "was changed by hand"), ({"config_fingerprint": "0"}, "was made with other settings")],
)
def test_a_search_of_another_making_is_refused(compared: Work, changes: dict[str, str], said: str) -> None:
    put(compared, **changes)
    with pytest.raises(ConfigError, match=said):
        compared._require_results()
        compared._require_settings(compared.path("search"))


def test_work_without_a_study_asks_for_none() -> None:
    assert {one.stage.name for one in makers(compose(["model=demo_standard"]))} & {"search_recipes"} == set()
