"""A search's and a study's trials in this process: what is run, what is shared, and what is never run again."""

import json
import threading
import time
from dataclasses import replace

import pytest

from pipeline.errors import RunError
from pipeline.study.progress import Progress
from pipeline.study.run import runner
from pipeline.study.trials import Recipe
from pipeline.tracking import StageRun
from pipeline.training import checkpoint, lineage, ray_trials, trial
from pipeline.training.job import NonFiniteError
from pipeline.training.log import RunLog
from pipeline.training.trial import FILE, read_outcome, run_trial, stop, write_outcome
from tests.token_folder import write_token_folder
from tests.unit.study_trials import PER_STEP, maker, model, outcome, study

ARM = study(a={}, b={}).arms["a"]
RECIPE = Recipe(1e-3, 0.02)
BOTH = (4 * PER_STEP, 8 * PER_STEP)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


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
