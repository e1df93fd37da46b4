"""The search of recipes: what is tried in what order, what names a trial, and what is said of it."""

import math

import pytest

from pipeline.errors import ConfigError
from pipeline.results.search import FoundRecipe
from pipeline.study import progress
from pipeline.study.compare import Comparison
from pipeline.study.progress import Progress
from pipeline.study.search import Search, recipe_of, search_result
from pipeline.study.trials import Recipe
from pipeline.training.trial import write_outcome
from tests.token_folder import write_token_folder
from tests.unit.study_trials import PER_STEP, FakeRun, maker, model, outcome, study

ARM = study(a={}, b={}).arms["a"]
RECIPE = Recipe(1e-3, 0.02)
BOTH = (4 * PER_STEP, 8 * PER_STEP)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


# What is searched


def searching(tokens, runs, arms=("a", "b"), **changes):
    models = {(arm, size): model(f"{size}.{arm}") for arm in arms for size in changes.get("sizes", ("xs",))}
    the_maker = maker(tokens, runs, **changes)
    return Search(the_maker.config.sweep, study(a={}, b={}).arms, models, the_maker)


def bowl(best: dict[str, float], width: float = 1.0):
    """Losses with one lowest rate an arm, in logarithms."""

    def told(arm, rate, scale, halved):
        return outcome(3 + width * abs(math.log(rate / best[arm])) + 10 * abs(scale - 0.06))

    return told


def test_search_order_halving_and_other_scales(tokens, tmp_path):
    run = FakeRun(bowl({"a": 2e-3, "b": 2e-3}))
    search = searching(tokens, tmp_path, init_stds=[0.02, 0.06, 0.1])
    found, recipes = search.all(run)
    rates = [(2e-3, 0.02), (1e-3, 0.02), (4e-3, 0.02)]  # the middle first
    assert run.calls == [
        (True, [("a", *point) for point in rates]),
        (True, [("b", *point) for point in rates]),
        (False, [(arm, 2e-3, scale) for arm in "ab" for scale in (0.06, 0.1)]),
        (False, [(arm, rate, 0.06) for arm in "ab" for rate in (1e-3, 4e-3)]),  # next to the best, at its scale
    ]
    assert [(one.arm, one.learning_rate, one.init_std, one.at_edge) for one in recipes] == [
        ("a", 2e-3, 0.06, False),
        ("b", 2e-3, 0.06, False),
    ]
    assert len(found) == 14 and [one.name for one in search.known()] == [
        one.trial.name for arm in "ab" for one in sorted(found, key=lambda one: one.recipe) if one.arm == arm
        if one.recipe.init_std == 0.02
    ]  # fmt: skip


def test_search_goes_beyond_the_edge_on_both_sides_and_says_where_it_stopped(tokens, tmp_path):
    run = FakeRun(bowl({"a": 1e-6, "b": 8e-3}))
    _, recipes = searching(tokens, tmp_path, extend=2).all(run)
    beyond = [calls for halved, calls in run.calls if not halved]
    assert [[arm for arm, _, _ in call] for call in beyond] == [["a", "b"], ["a", "b"]]
    rates = {arm: [rate for call in beyond for one, rate, _ in call if one == arm] for arm in "ab"}
    assert rates == {"a": pytest.approx([5e-4, 2.5e-4]), "b": pytest.approx([8e-3, 16e-3])}
    told = {one.arm: (one.learning_rate, one.at_edge) for one in recipes}
    assert told == {"a": (pytest.approx(2.5e-4), True), "b": (pytest.approx(8e-3), False)}
    alone = FakeRun(bowl({"a": 1e-6, "b": 1.0}))
    _, recipes = searching(tokens, tmp_path, extend=0).all(alone)
    assert [halved for halved, _ in alone.calls] == [True, True] and all(one.at_edge for one in recipes)


def test_search_every_size_has_the_central_one_first(tokens, tmp_path):
    sizes = {"s": {"model": "demo_standard"}, "m": {"model": "demo_standard"}}
    run = FakeRun(bowl({"a": 2e-3, "b": 2e-3}))
    changes = {"sizes": sizes, "central_size": "m"}
    _, recipes = searching(tokens, tmp_path, **changes, search_every_size=True).all(run)
    assert [(one.size, one.arm) for one in recipes] == [("m", "a"), ("m", "b"), ("s", "a"), ("s", "b")]
    _, recipes = searching(tokens, tmp_path, **changes).all(run)
    assert {one.size for one in recipes} == {"m"}


def test_search_with_diverged_trials_is_a_result(tokens, tmp_path):
    def told(arm, rate, scale, halved):
        return outcome(None, "diverged", 0) if rate > 1e-3 else outcome(4.0 - 100 * rate)

    search = searching(tokens, tmp_path, extend=2)
    found, recipes = search.all(FakeRun(told))
    assert {(one.learning_rate, one.at_edge) for one in recipes} == {(1e-3, False)}  # 5e-4 was tried, and is worse
    result = search_result(search, found, recipes, "tiny", "demo", 1337)
    assert (result.cost.trials, result.cost.diverged, result.cost.stopped) == (8, 4, 0)
    assert {one.loss_nats for one in result.trials if one.outcome == "diverged"} == {None}


def test_search_without_a_point_that_trains_is_one_line(tokens, tmp_path):
    run = FakeRun(lambda arm, rate, *_: outcome(None, "diverged", 0) if arm == "b" else outcome(3.0))
    with pytest.raises(ConfigError) as caught:
        searching(tokens, tmp_path).all(run)
    text = str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in text
    assert text.startswith("sweep.learning_rates: no point of the search space trains b at size xs: all of ")
    assert all(rate in text for rate in ("0.001", "0.002", "0.004")) and "rates below 0.001 might" in text


def test_search_whose_survivors_diverge_runs_those_that_it_stopped(tokens, tmp_path):
    def told(arm, rate, scale, halved):
        if rate == 4e-3:
            return outcome(None, "diverged", 3 * PER_STEP)
        return outcome(None, "stopped", 2 * PER_STEP) if halved else outcome(3 + rate)

    run = FakeRun(told)
    found, recipes = searching(tokens, tmp_path, extend=0).all(run)
    assert [point for halved, points in run.calls for point in points if not halved] == [
        (arm, rate, 0.02) for arm in "ab" for rate in (2e-3, 1e-3)
    ]
    assert [(one.arm, one.learning_rate) for one in recipes] == [("a", 1e-3), ("b", 1e-3)]
    assert len(found) == 6 and sum(one.outcome.outcome == "diverged" for one in found) == 2


def test_search_trials_of_close_rates_have_names_of_their_own(tokens, tmp_path):
    known = searching(tokens, tmp_path, learning_rates=[1.0000001e-3, 1.0000002e-3]).known()
    assert len({one.name for one in known}) == len({one.jobs[0].run_folder for one in known}) == 4


def test_recipe_of_another_size_and_rate_over_width(tokens, tmp_path):
    recipes = [
        FoundRecipe(arm=arm, size=size, learning_rate=rate, init_std=0.06, loss_nats=3.0, at_edge=False)
        for arm, size, rate in [("a", "m", 4e-3), ("b", "m", 2e-3), ("b", "l", 1e-3)]
    ]
    search = searching(tokens, tmp_path)
    result = search_result(search, [], recipes, "tiny", "demo", 1337)
    assert recipe_of(result, "a", "m") == (recipes[0], False)
    assert recipe_of(result, "a", "l") == (recipes[0], True)
    assert recipe_of(result, "b", "l") == (recipes[2], False)
    with pytest.raises(ConfigError, match=r"no recipe of c: run python -m stages\.search_recipes again"):
        recipe_of(result, "c", "m")

    arms = study(a={"rate_width_exponent": 0.5}, b={"rate_width_exponent": 1})
    models = {(arm, size): model(f"{size}.{arm}", n_embd=width) for arm in "ab" for size, width in
              (("m", 32), ("l", 128))}  # fmt: skip
    sizes = {size: {"model": "demo_standard"} for size in ("m", "l")}
    the_maker = maker(tokens, tmp_path, sizes=sizes, central_size="m")
    comparison = Comparison(arms, the_maker.config.sweep, models, result, the_maker, 5)
    rates = {
        (job.model.name, job.training.seed, job.training.steps): (job.training.learning_rate, job.model.init_std)
        for one in comparison.trials()
        for job in one.jobs
    }
    assert rates == {
        (f"{size}.{arm}", seed, steps): (pytest.approx(rate), 0.06)
        for size, arm, rate, counts in [
            ("m", "a", 4e-3, (4, 8)),
            ("m", "b", 2e-3, (4, 8)),
            ("l", "a", 4e-3 * (32 / 128) ** 0.5, (4,)),
            ("l", "b", 1e-3, (4,)),  # searched there: not scaled
        ]
        for seed in (5, 6)
        for steps in counts
    }


# What names a trial


def folders(the_maker, tokens=BOTH, seed=7, recipe=RECIPE, **model_changes):
    made = the_maker.trial("one", model(**model_changes), ARM, recipe, tokens, seed)
    return [job.run_folder for job in made.jobs]


def test_same_tokens_trials_of_two_studies_are_one_and_every_setting_counts(tokens, tmp_path, tmp_path_factory):
    base = folders(maker(tokens, tmp_path))
    assert base == folders(maker(tokens, tmp_path, n_seeds=5, learning_rates=[1.0], tokens=[4 * PER_STEP]))
    other_data = write_token_folder(tmp_path_factory.mktemp("other"), characters=100_000)
    others = [
        folders(maker(tokens, tmp_path), seed=8),
        folders(maker(tokens, tmp_path), recipe=Recipe(2e-3, 0.02)),
        folders(maker(tokens, tmp_path), recipe=Recipe(1e-3, 0.03)),
        folders(maker(tokens, tmp_path), n_embd=32),
        folders(maker(tokens, tmp_path), tokens=(5 * PER_STEP, 9 * PER_STEP)),
        folders(maker(tokens, tmp_path, warmup_steps=2)),
        folders(maker(tokens, tmp_path, training={"weight_decay": 0.2})),
        folders(maker(tokens, tmp_path, code="changed")),
        folders(maker(other_data, tmp_path)),
    ]
    every = [folder for one in [base, *others] for folder in one]
    assert len(set(every)) == len(every)


def test_same_tokens_counts_and_seeds_that_are_added_keep_those_that_were_there(tokens, tmp_path):
    three = folders(maker(tokens, tmp_path), tokens=(*BOTH, 16 * PER_STEP))
    assert three[:2] == folders(maker(tokens, tmp_path))
    result = search_result(
        searching(tokens, tmp_path),
        [],
        [FoundRecipe(arm=arm, size="xs", **RECIPE._asdict(), loss_nats=3.0, at_edge=False) for arm in "ab"],
        *("tiny", "demo", 1337),
    )
    models = {(arm, "xs"): model(f"xs.{arm}") for arm in "ab"}

    def all_folders(n_seeds):
        the_maker = maker(tokens, tmp_path, n_seeds=n_seeds)
        comparison = Comparison(study(a={}, b={}), the_maker.config.sweep, models, result, the_maker, 1337)
        return [job.run_folder for one in comparison.trials() for job in one.jobs]

    assert len(set(all_folders(2))) == 8 and all_folders(3)[:8] == all_folders(2)


def test_search_trials_validate_at_their_rungs(tokens, tmp_path):
    the_maker = maker(tokens, tmp_path, search_tokens=16 * PER_STEP, rungs=3)
    (job,) = the_maker.search_trial("one", model(), ARM, RECIPE).jobs
    assert (job.training.steps, job.training.eval_interval, job.cluster.checkpoint_interval) == (16, 4, 4)
    assert the_maker.first_rung(model()) == 4 * PER_STEP


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"search_tokens": 6 * PER_STEP, "rungs": 3}, r"sweep\.search_tokens=768: .*1\.5 steps of 128 tokens; .*512"),
        ({"tokens": [4 * PER_STEP, 1000]}, r"sweep\.tokens=1000: no whole number of steps of 128 tokens; 1024 would"),
        ({"warmup_steps": 4}, r"sweep\.warmup_steps=4: 4 steps of warm-up leave none of 4 \(512 tokens\); at most 1"),
    ],
)
def test_search_steps_that_do_not_fit(tokens, tmp_path, changes, text):
    the_maker = maker(tokens, tmp_path, **changes)
    with pytest.raises(ConfigError, match=text):
        the_maker.check(study(a={}, b={}), {(arm, "xs"): model(f"xs.{arm}") for arm in "ab"})


# What is said


def test_search_progress_says_how_trials_ended_and_what_is_left(tokens, tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    the_maker, said = maker(tokens, tmp_path), []
    trials = [the_maker.search_trial(f"t{n}", model(), ARM, Recipe(rate, 0.02)) for n, rate in enumerate((1e-3, 2e-3,
              3e-3, 4e-3, 5e-3))]  # fmt: skip
    trials[0].jobs[0].run_folder.mkdir(parents=True)
    write_outcome(trials[0].jobs[0], outcome(3.0))
    told = Progress(said.append, trials)
    assert said == ["1 trials were done before, and are kept", "4 trials to do"]
    told.ended(trials[1], [outcome(None, "diverged", 0)])
    assert said[-1] == "[1/4] t1: diverged: step 1: loss nan after 0 tokens"  # nothing to tell the rest by
    clock[0] += 600
    told.ended(trials[2], [outcome(3.25)])
    assert said[-1] == f"[2/4] t2: 3.2500 nats after {4 * PER_STEP} tokens; about 20 min left"
    clock[0] += 300
    told.ended(trials[3], [outcome(None, "stopped", 2 * PER_STEP)])
    half = 2 * PER_STEP
    assert said[-1] == f"[3/4] t3: stopped by the search at {half} tokens after {half} tokens; about 10 min left"
    told.ended(trials[4], [outcome(3.0)])
    assert said[-1] == f"[4/4] t4: 3.0000 nats after {4 * PER_STEP} tokens"
    told.ended(the_maker.search_trial("beyond", model(), ARM, Recipe(9e-3, 0.02)), [outcome(3.0)])
    assert said[-1].startswith("[5/5] beyond: 3.0000 nats")
