"""The search of recipes, and trials in this process: what is run, in what order, and what is never run again."""

import json
import math
import threading
import time
from dataclasses import replace

import pytest

from pipeline.errors import ConfigError, RunError
from pipeline.results.search import FoundRecipe
from pipeline.study import progress
from pipeline.study.compare import Comparison
from pipeline.study.progress import Progress
from pipeline.study.run import runner
from pipeline.study.search import Search, recipe_of, search_result
from pipeline.study.trials import Recipe
from pipeline.tracking import StageRun
from pipeline.training import checkpoint, lineage, ray_trials, trial
from pipeline.training.job import NonFiniteError
from pipeline.training.log import RunLog
from pipeline.training.trial import FILE, read_outcome, run_trial, stop, write_outcome
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


# What is run


def losses(made, **options):
    reports: list[dict[str, float]] = []
    return run_trial(made, reports.append, say=lambda line: None, **options), reports


def refuse(*_):
    raise AssertionError("trained again")


def watching(monkeypatch) -> list[int]:
    """The steps of every job that is trained from here on."""
    trained: list[int] = []
    train = trial.train

    def watched(job, *rest):
        trained.append(job.training.steps)
        return train(job, *rest)

    monkeypatch.setattr(trial, "train", watched)
    return trained


def test_same_tokens_counts_share_a_trunk_bit_for_bit(tokens, tmp_path):
    made = maker(tokens, tmp_path / "both").trial("both", model(), ARM, RECIPE, BOTH, 7)
    both, reports = losses(made)
    apart = []
    for count in BOTH:
        apart += losses(maker(tokens, tmp_path / f"{count}").trial("alone", model(), ARM, RECIPE, (count,), 7))[0]
    assert [one.loss_nats for one in both] == [one.loss_nats for one in apart]
    assert [one.tokens for one in both] == [one.tokens for one in apart] == list(BOTH)
    assert [one.own_tokens for one in both] == [4 * PER_STEP, 4 * PER_STEP]  # 4 of 8 steps: a decay of none of 4
    assert [one.own_tokens for one in apart] == list(BOTH)
    assert reports == []  # ends are told by whoever has it run
    for one, job in zip(both, made.jobs, strict=True):
        assert read_outcome(job) == one and one.outcome == "finished"
        assert one.validation == [(one.tokens, one.loss_nats)]
        assert not (job.run_folder / "checkpoints").exists()


def test_same_tokens_trials_part_where_the_shorter_decays(tokens, tmp_path):
    counts = (10 * PER_STEP, 20 * PER_STEP)  # the plateau of 10 steps ends at 8
    made = maker(tokens, tmp_path / "both").trial("both", model(), ARM, RECIPE, counts, 7)
    both, _ = losses(made)
    long = maker(tokens, tmp_path / "long").trial("long", model(), ARM, RECIPE, counts[1:], 7)
    assert both[1].loss_nats == losses(long)[0][0].loss_nats
    assert both[1].own_tokens == 12 * PER_STEP


def test_same_tokens_trial_that_is_done_is_not_run_again(tokens, tmp_path, monkeypatch):
    the_maker = maker(tokens, tmp_path)
    made = the_maker.trial("one", model(), ARM, RECIPE, BOTH, 7)
    first, _ = losses(made)
    files = [job.run_folder / FILE for job in made.jobs]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    with monkeypatch.context() as patched:
        patched.setattr(trial, "train", refuse)
        assert losses(made)[0] == first
        monkeypatch.setattr(ray_trials, "_fit", refuse)
        cluster = made.jobs[0].cluster
        assert ray_trials.run_trials([made], cluster, refuse) == {"one": first}
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    longer = the_maker.trial("one", model(), ARM, RECIPE, (*BOTH, 12 * PER_STEP), 7)
    trained = watching(monkeypatch)
    assert losses(longer)[0][:2] == first and trained == [12]
    files[0].write_text("{")  # no outcome: it is made again, the same
    again = losses(made)[0]
    assert [one.loss_nats for one in again] == [one.loss_nats for one in first] and trained == [12, 4]


def test_same_tokens_trial_that_diverges_is_an_outcome_and_longer_ones_are_marked(tokens, tmp_path, monkeypatch):
    counts = (20 * PER_STEP, 40 * PER_STEP)
    made = maker(tokens, tmp_path).trial("wild", model(), ARM, Recipe(1e30, 0.02), counts, 7)
    trained = watching(monkeypatch)
    (short, long), _ = losses(made)
    assert trained == [20] and short.outcome == long.outcome == "diverged"
    assert short.loss_nats is None and short.fault.startswith("step ") and short.tokens < counts[0]
    assert (long.tokens, long.own_tokens, long.fault) == (short.tokens, 0, short.fault)
    assert [read_outcome(job) for job in made.jobs] == [short, long]
    assert "NaN" not in (made.jobs[0].run_folder / FILE).read_text()
    assert losses(made)[0] == [short, long] and trained == [20]


def test_same_tokens_trial_that_diverges_in_its_decay_says_nothing_of_a_longer_one(tokens, tmp_path):
    counts = (10 * PER_STEP, 20 * PER_STEP)
    made = maker(tokens, tmp_path).trial("late", model(), ARM, RECIPE, counts, 7)
    made.jobs[0].run_folder.mkdir(parents=True)
    write_outcome(made.jobs[0], outcome(None, "diverged", 9 * PER_STEP))  # behind step 8 the longer one goes elsewhere
    (short, long), _ = losses(made)
    assert short.outcome == "diverged" and long.outcome == "finished" and long.own_tokens == 20 * PER_STEP


def test_same_tokens_outcome_that_was_edited_or_copied_is_none(tokens, tmp_path):
    job, other = maker(tokens, tmp_path).trial("one", model(), ARM, RECIPE, BOTH, 7).jobs
    write_outcome(job, outcome(3.0))
    path = job.run_folder / FILE
    assert read_outcome(job) == outcome(3.0)
    other.run_folder.mkdir(parents=True)
    (other.run_folder / FILE).write_text(path.read_text())
    assert read_outcome(other) is None
    body = json.loads(path.read_text())
    unmarked = {name: value for name, value in body.items() if name not in ("fingerprint", "digest")}
    for edited in ({**body, "loss_nats": 2.0}, {**body, "fingerprint": other.fingerprint}, unmarked, [body], 3):
        path.write_text(json.dumps(edited))
        assert read_outcome(job) is None


def test_same_tokens_trial_that_two_commands_want_is_begun_and_run_once(tokens, tmp_path, monkeypatch):
    made = maker(tokens, tmp_path).trial("one", model(), ARM, RECIPE, BOTH, 7)
    trained, begun, begin = watching(monkeypatch), [], lineage.begin
    inside, go_on = threading.Event(), threading.Event()

    def slow(job, say):
        begun.append(job.training.steps)
        if begun == [4, 8]:
            inside.set()
            assert go_on.wait(100)
        begin(job, say)

    monkeypatch.setattr(lineage, "begin", slow)
    ended = []
    commands = [threading.Thread(target=lambda: ended.append(losses(made)[0])) for _ in range(2)]
    commands[0].start()
    assert inside.wait(100)
    commands[1].start()
    time.sleep(1)  # it finds that the longer run is to be done, and waits for the first
    go_on.set()
    for command in commands:
        command.join()
    assert begun == trained == [4, 8]
    assert len(ended) == 2 and ended[0] == ended[1] == made.outcomes()
    assert [one.own_tokens for one in ended[0]] == [4 * PER_STEP, 4 * PER_STEP]


def test_search_trials_of_one_name_are_refused(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_trials, "_fit", refuse)
    made = [maker(tokens, tmp_path).search_trial("one", model(), ARM, Recipe(rate, 0.02)) for rate in (1e-3, 2e-3)]
    folders = [str(one.jobs[0].run_folder) for one in made]
    with pytest.raises(ValueError, match="two trials are named 'one'") as caught:
        ray_trials.run_trials(made, made[0].jobs[0].cluster, refuse)
    assert all(folder in str(caught.value) for folder in folders)


class Log(StageRun):
    """A tracker's run that notes trials, or fails."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault, self.names = fault, []

    def log_trial(self, name, *rest):
        if self.fault:
            raise self.fault
        self.names.append(name)


def test_search_whose_tracker_fails_keeps_its_trials_and_notes_them_later(tokens, tmp_path, monkeypatch):
    the_maker, said = maker(tokens, tmp_path), []
    trials = [the_maker.search_trial(f"t{rate}", model(), ARM, Recipe(rate, 0.02)) for rate in (1e-3, 2e-3)]

    def fit(trials, cluster, fresh, told, halving):
        for one in trials:
            told(one, losses(one)[0])

    def run(log):
        return runner(the_maker.config, the_maker, Progress(said.append, trials), log)(trials, False)

    monkeypatch.setattr(ray_trials, "_fit", fit)
    with pytest.raises(RunError) as caught:
        run(Log(OSError("the store is gone\n  and more")))
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert str(caught.value).startswith("tracking.uri=") and "the store is gone; the trials are done" in str(
        caught.value
    )
    assert said.count("tracking failed, the study goes on: the store is gone") == 2
    assert all(one.outcomes() for one in trials)
    monkeypatch.setattr(ray_trials, "_fit", refuse)
    with pytest.raises(RunError, match="TimeoutError; the trials"):  # one that says nothing
        run(Log(TimeoutError()))
    log = Log()
    assert run(log) == {one.name: one.outcomes() for one in trials}
    assert log.names == ["t0.001 4 steps", "t0.002 4 steps"]


class StoppedError(Exception):
    """Stands for Tune, which ends a trial inside of a report, and for a kill."""


def interrupted(made, after: int) -> list[dict[str, float]]:
    """The reports of a trial that ends inside of one."""
    reports: list[dict[str, float]] = []

    def report(numbers):
        reports.append(numbers)
        if len(reports) == after:
            raise StoppedError

    with pytest.raises(StoppedError):
        run_trial(made, report, say=lambda line: None)
    return reports


def test_search_trial_that_was_stopped_tells_its_rungs_again_and_runs_on_only_when_asked(tokens, tmp_path, monkeypatch):
    the_maker = maker(tokens, tmp_path / "stopped", search_tokens=8 * PER_STEP, rungs=3)
    made = the_maker.search_trial("one", model(), ARM, RECIPE)
    reports = interrupted(made, after=2)
    (job,) = made.jobs
    stopped = stop(job)
    assert (stopped.outcome, stopped.loss_nats, stopped.tokens) == ("stopped", None, 4 * PER_STEP)
    assert [one["tokens"] for one in reports] == [2 * PER_STEP, 4 * PER_STEP]
    assert stopped.validation == [(int(one["tokens"]), one["loss_nats"]) for one in reports]
    assert read_outcome(job) == stopped and stopped.seconds > 0 and not (job.run_folder / "checkpoints").exists()
    with monkeypatch.context() as patched:
        patched.setattr(trial, "train", refuse)
        assert losses(made) == ([stopped], reports)
        halving = ray_trials.Halving(2 * PER_STEP, 8 * PER_STEP, 2.0)
        assert ray_trials.run_trials([made], job.cluster, refuse, halving) == {"one": [stopped]}

    other = maker(tokens, tmp_path / "whole", search_tokens=8 * PER_STEP, rungs=3)
    (whole,), rungs = losses(other.search_trial("one", model(), ARM, RECIPE))
    assert [one["tokens"] for one in rungs] == [2 * PER_STEP, 4 * PER_STEP, 6 * PER_STEP] and rungs[:2] == reports
    assert losses(other.search_trial("one", model(), ARM, RECIPE)) == ([whole], rungs)  # replayed, the end left out
    (ended,), _ = losses(made, to_the_end=True)
    assert (ended.loss_nats, ended.validation, ended.tokens) == (whole.loss_nats, whole.validation, whole.tokens)
    assert json.loads((job.run_folder / FILE).read_text())["outcome"] == "finished"


def test_search_hears_of_a_rung_before_the_next_step(tokens, tmp_path):
    the_maker = maker(tokens, tmp_path, cluster={"checkpoint_interval": 3}, search_tokens=8 * PER_STEP)  # rung at 4
    made, taken = the_maker.search_trial("one", model(), ARM, RECIPE), []
    log = RunLog(made.jobs[0].run_folder)

    def report(numbers):
        taken.append((numbers["tokens"], max(one["step"] for one in log.read())))

    run_trial(made, report, say=lambda line: None)
    assert taken == [(4 * PER_STEP, 4)]


def between_validations(tokens, folder):
    """A trial that validates at 4 of 8 steps, saves at 3 and 6, and has told its log of no step before the last."""
    made = maker(tokens, folder, search_tokens=8 * PER_STEP).search_trial("one", model(), ARM, RECIPE)
    (job,) = made.jobs
    cluster = job.cluster.model_copy(update={"checkpoint_interval": 3, "log_interval": 100})
    return replace(made, jobs=(replace(job, cluster=cluster),))


@pytest.mark.parametrize("steps_behind", [0, 2])
def test_search_trial_that_was_stopped_counts_all_steps_that_it_took(tokens, tmp_path, steps_behind):
    made = between_validations(tokens, tmp_path)
    (job,) = made.jobs
    interrupted(made, after=1)
    (kept,) = checkpoint.checkpoints(job.run_folder)
    seconds = json.loads((kept / checkpoint.STATE).read_text())["seconds"]
    if steps_behind:  # of half a second each
        RunLog(job.run_folder).append({"kind": "train", "step": 7, "tokens_per_s": 2 * PER_STEP})
        RunLog(job.run_folder).append({"kind": "validation", "step": 8, "loss_nats": 6.0})
    stopped = stop(job)
    assert stopped.tokens == stopped.own_tokens == (6 + steps_behind) * PER_STEP
    assert stopped.seconds == pytest.approx(seconds + steps_behind / 2) and seconds > 0
    assert stopped.validation[0][0] == 4 * PER_STEP


def test_search_trial_that_diverged_counts_all_steps_that_it_took(tokens, tmp_path, monkeypatch):
    made, train, saved = between_validations(tokens, tmp_path), trial.train, []

    def diverging(job, worker, report):
        def told(numbers):
            saved.append(numbers["step"])
            if len(saved) == 2:
                raise NonFiniteError("step 7: loss nan")

        return train(job, worker, told)

    monkeypatch.setattr(trial, "train", diverging)
    (found,), _ = losses(made)
    assert (found.outcome, found.tokens, found.own_tokens) == ("diverged", 6 * PER_STEP, 6 * PER_STEP)
    assert found.seconds > 0 and saved == [3, 6]


def test_search_without_halving_does_not_take_a_stopped_trial_for_done(tokens, tmp_path, monkeypatch):
    made = maker(tokens, tmp_path).search_trial("one", model(), ARM, RECIPE)
    made.jobs[0].run_folder.mkdir(parents=True)
    write_outcome(made.jobs[0], outcome(None, "stopped", 2 * PER_STEP))

    def fit(trials, cluster, fresh, told, halving):
        assert [one.name for one in trials] == ["one"] and fresh == {"one"} and halving is None
        losses(made, to_the_end=True)

    monkeypatch.setattr(ray_trials, "_fit", fit)
    found = ray_trials.run_trials([made], made.jobs[0].cluster, refuse)
    assert found["one"][0].outcome == "finished"


def test_search_trial_that_was_killed_goes_on_from_its_checkpoint(tokens, tmp_path, monkeypatch):
    changes = {"search_tokens": 8 * PER_STEP, "rungs": 3}
    made = maker(tokens, tmp_path / "killed", **changes).search_trial("one", model(), ARM, RECIPE)
    interrupted(made, after=2)
    assert made.outcomes() is None
    resumed = []
    train = trial.train

    def watched(job, worker, report):
        resumed.append(max(int(one.name[5:]) for one in (job.run_folder / "checkpoints").iterdir()))
        return train(job, worker, report)

    monkeypatch.setattr(trial, "train", watched)
    (ended,), reports = losses(made)
    straight = maker(tokens, tmp_path / "straight", **changes).search_trial("one", model(), ARM, RECIPE)
    monkeypatch.setattr(trial, "train", train)
    (whole,), rungs = losses(straight)
    assert resumed == [4] and reports == rungs
    assert (ended.loss_nats, ended.validation, ended.own_tokens) == (whole.loss_nats, whole.validation, 8 * PER_STEP)
