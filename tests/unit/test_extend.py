"""Runs that go on from others: longer ones with the same past, and branches. Through the real loop, without Ray."""

import dataclasses
import errno
import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from pipeline import files
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.config.group import Group
from pipeline.data import TokenData, TokenSampler
from pipeline.errors import CheckpointError
from pipeline.models import build_model
from pipeline.training import checkpoint, lineage, origin
from pipeline.training import run as runs
from pipeline.training.branch import Branch
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.loop import train
from pipeline.training.optimizer import make_optimizer
from pipeline.training.schedule import learning_rate
from pipeline.training.state import TrainingState
from stages import train as train_stage
from stages.entry import launch
from tests.token_folder import data_overrides, write_token_folder
from tests.unit.test_training import TINY, KilledError, flip_a_bit, losses

EVERY_4 = "cluster.checkpoint_interval=4"
WSD = ("training.schedule=wsd", "training.decay_steps=4", EVERY_4)
LONG = (*WSD, "training.steps=20")
KEEP_ALL = "cluster.keep_checkpoints=9"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    monkeypatch.setattr(runs.ray_launcher, "fit", lambda the_job, poll, say: train(the_job, Worker(), lambda _: None))


@functools.cache
def tiny() -> Config:
    """Composed once: that takes longer than a run."""
    return compose(TINY)


def changed(group: Group, name: str, changes: tuple[str, ...]) -> Group:
    """The settings of `group` with those of `changes` that are its own, checked as ever."""
    pairs = [change.removeprefix(f"{name}.").split("=") for change in changes if change.startswith(f"{name}.")]
    found = {key: float(value) if "e-" in value else value if value.isalpha() else int(value) for key, value in pairs}
    return type(group).model_validate({**dict(group), **found})


def job(tokens: Path, root: Path, *changes: str, branch_from: Path | None = None) -> TrainingJob:
    groups = {name: changed(getattr(tiny(), name), name, changes) for name in ("model", "training", "cluster")}
    training = groups["training"].model_copy(update={"branch_from": branch_from and str(branch_from)})
    root.mkdir(parents=True, exist_ok=True)
    return TrainingJob(groups["model"], training, groups["cluster"], tokens, root, "a-fingerprint")


def named(tokens: Path, root: Path, *changes: str, branch_from: Path | None = None, code: str = "code") -> TrainingJob:
    """The job of these settings in the folder that is theirs."""
    the_job = job(tokens, root, *changes, branch_from=branch_from)
    settings = {"model": the_job.model.identity(), "training": the_job.training.identity()}
    name = runs.identity(settings, tokens, {"code": code}, Branch.of(the_job.training))
    folder = root / f"{the_job.model.name}-{name}"
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(the_job, run_folder=folder, fingerprint=name)


def go(the_job: TrainingJob) -> tuple[TrainingState, list[str]]:
    """The finished state, and what was said but for the log."""
    said: list[str] = []
    state = runs.run(the_job, said.append, lambda records: None)
    return state, [line for line in said if not line.startswith("step ")]


def assert_same(one: TrainingState, other: TrainingState) -> None:
    assert (one.step, one.tokens) == (other.step, other.tokens)
    for (name, ours), theirs in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    for name, moment in one.named_moments().items():
        assert torch.equal(moment, other.named_moments()[name]), name


def steps_of(run_folder: Path) -> list[int]:
    return [checkpoint.step_of(folder) for folder in checkpoint.checkpoints(run_folder)]


def records_of(run_folder: Path) -> list[tuple[str, int]]:
    return [(record["kind"], record["step"]) for record in RunLog(run_folder).read()]


def test_an_extended_plateau_is_the_longer_run_bit_for_bit(tokens, tmp_path):
    straight, said = go(named(tokens, tmp_path / "straight", *LONG))
    assert said == []
    short = named(tokens, tmp_path / "both", *WSD)
    go(short)
    assert steps_of(short.run_folder) == [8, 12]
    before = {path: path.read_bytes() for path in short.run_folder.rglob("*") if path.is_file()}
    long = named(tokens, tmp_path / "both", *LONG)
    extended, said = go(long)
    assert said == [f"extends {short.run_folder} from step 8", "resuming from step 8"]
    assert_same(extended, straight)
    assert extended.validation == straight.validation
    assert losses(long.run_folder) == losses(next((tmp_path / "straight").glob("demo*")))
    assert records_of(long.run_folder) == records_of(next((tmp_path / "straight").glob("demo*")))
    assert before == {path: path.read_bytes() for path in short.run_folder.rglob("*") if path.is_file()}
    found = runs.result(long, extended, TokenData.open(tokens), "demo")
    assert found.adopted is not None and found.branched is None
    assert found.adopted.model_dump() == {"fingerprint": short.fingerprint, "step": 8}
    said = go(long)[1]
    assert said == ["all 20 steps were taken before"]
    longest, said = go(named(tokens, tmp_path / "both", *WSD, "training.steps=24"))
    assert said[0] == f"extends {long.run_folder} from step 16"  # the end of that one's plateau
    assert_same(longest, go(named(tokens, tmp_path / "alone", *WSD, "training.steps=24"))[0])


def test_the_end_of_a_plateau_is_kept_for_good(tokens, tmp_path):
    rarely = ("cluster.checkpoint_interval=1000", "cluster.keep_checkpoints=1")
    short = named(tokens, tmp_path, *WSD, *rarely)
    go(short)
    assert steps_of(short.run_folder) == [8, 12]
    longer = named(tokens, tmp_path, *LONG, *rarely)
    assert go(longer)[1][0] == f"extends {short.run_folder} from step 8"
    assert steps_of(longer.run_folder) == [8, 16, 20]  # 8 as well, though none of its own milestones


def test_resume_of_an_extended_run_is_exact(tokens, tmp_path, monkeypatch):
    straight, _ = go(named(tokens, tmp_path / "straight", *LONG))
    go(named(tokens, tmp_path / "both", *WSD))
    long = named(tokens, tmp_path / "both", *LONG)

    def kill(metrics: dict[str, float]) -> None:
        if metrics["step"] == 16:
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(runs.ray_launcher, "fit", lambda the_job, poll, say: train(the_job, Worker(), kill))
        runs.run(long, lambda line: None, lambda records: None)
    resumed, said = go(long)
    assert said == ["resuming from step 16"]
    assert_same(resumed, straight)
    assert lineage.read(long.run_folder)["adopted"]["step"] == 8


def test_a_longer_cosine_begins_anew_and_says_why(tokens, tmp_path):
    short = named(tokens, tmp_path / "both", EVERY_4)
    go(short)
    state, said = go(named(tokens, tmp_path / "both", EVERY_4, "training.steps=20"))
    assert said == [
        f"begins anew: {short.run_folder} had the same learning rates until step 4, its oldest checkpoint is of step 8"
        "; a cosine depends on all its steps, a run with training.schedule=wsd can be extended"
    ]
    assert_same(state, go(named(tokens, tmp_path / "alone", EVERY_4, "training.steps=20"))[0])


@pytest.mark.parametrize(
    "change", ["training.learning_rate=1e-3", "training.seed=2", "training.weight_decay=0", "model.n_layer=1"]
)
def test_what_did_something_else_is_not_extended(tokens, tmp_path, change):
    go(named(tokens, tmp_path, *WSD))
    assert go(named(tokens, tmp_path, *LONG, change))[1] == []


def test_other_code_is_not_extended(tokens, tmp_path):
    go(named(tokens, tmp_path, *WSD))
    assert go(named(tokens, tmp_path, *LONG, code="changed"))[1] == []


def test_other_intervals_of_logging_extend_and_keep_only_what_they_would_have_noted(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)  # a cosine: all its rates are the same
    whole, _ = go(first)
    finer = named(tokens, tmp_path, EVERY_4, "training.eval_interval=3", "training.sample_tokens=0")
    state, said = go(finer)
    assert said[0] == f"extends {first.run_folder} from step 8"
    assert_same(state, whole)
    assert [point["step"] for point in state.validation] == [6, 9, 12]
    assert state.validation[0] == whole.validation[0]
    notes = [record for record in records_of(finer.run_folder) if record[0] != "train"]
    assert notes == [("validation", 6), ("validation", 9), ("validation", 12)]
    fewer = named(tokens, tmp_path, EVERY_4, "training.eval_windows=2")
    state, said = go(fewer)
    assert said[0].endswith("from step 8")
    assert [point["step"] for point in state.validation] == [12]
    assert [step for kind, step in records_of(fewer.run_folder) if kind == "sample"] == [6, 12]


def test_the_commits_of_adopted_steps_are_known(tokens, tmp_path):
    first, second = named(tokens, tmp_path, *WSD), named(tokens, tmp_path, *LONG)
    go(first)
    files.write_json(first.run_folder / origin.FILE, [{"commit": "a", "from_step": 0}, {"commit": "b", "from_step": 8}])
    go(second)
    commits = origin.read(second.run_folder)
    assert [one["from_step"] for one in commits] == [0, 8] and commits[0]["commit"] == "a" != commits[1]["commit"]


def test_fault_a_damaged_sibling_is_passed_over(tokens, tmp_path):
    short = named(tokens, tmp_path / "both", "cluster.keep_checkpoints=3", *WSD)
    go(short)
    four, eight, _ = checkpoint.checkpoints(short.run_folder)
    model = next(eight.glob("model*.safetensors"))
    flip_a_bit(model)
    longer = named(tokens, tmp_path / "both", *LONG)
    state, said = go(longer)
    assert said[0] == f"{eight} is damaged ({model.name} has other bytes than were written); passed over"
    assert said[1] == f"extends {short.run_folder} from step 4"
    straight, _ = go(named(tokens, tmp_path / "straight", *LONG))
    assert_same(state, straight)

    shutil.rmtree(longer.run_folder)
    longer.run_folder.mkdir()
    (four / "state.json").write_text("{")
    state, said = go(longer)
    assert len(said) == 2 and all(line.endswith("passed over") for line in said)
    assert lineage.read(longer.run_folder)["adopted"] is None
    assert_same(state, straight)

    shutil.rmtree(longer.run_folder)
    longer.run_folder.mkdir()
    (short.run_folder / "run.json").write_text("[]")
    assert go(longer)[1] == []


def test_fault_a_checkpoint_of_another_run_or_step_is_passed_over(tokens, tmp_path):
    straight, _ = go(named(tokens, tmp_path / "straight", *LONG))
    short, other = (named(tokens, tmp_path, *WSD, *more) for more in ([KEEP_ALL], ["training.seed=2"]))
    go(short)
    go(other)
    four, eight, twelve = checkpoint.checkpoints(short.run_folder)
    shutil.rmtree(eight)
    shutil.copytree(other.run_folder / "checkpoints" / eight.name, eight)
    longer = named(tokens, tmp_path, *LONG)
    state, said = go(longer)
    assert said[0] == f"{eight} holds step 8 of {other.fingerprint}, not step 8 of {short.fingerprint}; passed over"
    assert said[1] == f"extends {short.run_folder} from step 4"
    assert_same(state, straight)

    for gone in (eight, twelve, longer.run_folder):
        shutil.rmtree(gone)
    four.rename(eight)
    longer.run_folder.mkdir()
    state, said = go(longer)
    assert said == [f"{eight} holds step 4 of {short.fingerprint}, not step 8 of {short.fingerprint}; passed over"]
    assert lineage.read(longer.run_folder)["adopted"] is None
    assert_same(state, straight)


def test_fault_a_sibling_without_hashes_is_passed_over(tokens, tmp_path):
    short = named(tokens, tmp_path, *WSD)
    go(short)
    eight = short.run_folder / "checkpoints/step-000000008"
    files.write_json(eight / "state.json", {**files.read_json(eight / "state.json"), "sha256": {}})
    state, said = go(named(tokens, tmp_path, *LONG))
    assert state.step == 20 and len(said) == 1
    assert said[0].startswith(f"{eight} is damaged (state.json has no SHA-256 of model")


def test_fault_a_sibling_whose_log_is_gone_is_passed_over(tokens, tmp_path):
    """What extends it would have no curve of those steps."""
    short, longer = named(tokens, tmp_path, *WSD), named(tokens, tmp_path, *LONG)
    go(short)
    log = RunLog(short.run_folder)
    records = log.read()
    log.replace([one for one in records if one["step"] > 8])
    passed_over = f"{short.run_folder}/checkpoints/step-000000008 has no record of its steps in {log.path}; passed over"
    assert go(longer)[1] == [passed_over]
    assert len(losses(longer.run_folder)) == 20
    shutil.rmtree(longer.run_folder)
    longer.run_folder.mkdir()
    log.path.unlink()
    assert go(longer)[1] == [passed_over]
    branched = named(tokens, tmp_path, *LONG, "training.seed=3", branch_from=short.run_folder)
    assert go(branched)[1][0].startswith("branches from")  # which takes no log


def test_fault_stray_folders_beside_checkpoints_are_none_of_them(tokens, tmp_path):
    """In the folders of a run that can be extended, of one by other code, and of what is none."""
    short, longer = named(tokens, tmp_path, *WSD), named(tokens, tmp_path, *LONG)
    other_code = named(tokens, tmp_path, *LONG, code="changed")
    go(short)
    for folder in (short.run_folder, other_code.run_folder, longer.run_folder, tmp_path / "backup"):
        (folder / "checkpoints/step-000000007.bak").mkdir(parents=True)
    assert go(longer)[1][0] == f"extends {short.run_folder} from step 8"
    assert go(named(tokens, tmp_path / "alone", *LONG))[1] == []
    shutil.rmtree(short.run_folder)
    shutil.rmtree(longer.run_folder)
    longer.run_folder.mkdir()
    assert go(longer)[1] == []


def test_fault_a_checkpoint_that_its_run_thins_out_just_now(tokens, tmp_path, monkeypatch):
    """That run is going on: it holds its folder, which keeps nobody from linking what is there."""
    short = named(tokens, tmp_path, "cluster.keep_checkpoints=3", *WSD)
    go(short)
    _, eight, _ = checkpoint.checkpoints(short.run_folder)
    link = os.link

    def thinned(source, target, **options):
        if Path(source).parent == eight:
            shutil.rmtree(eight)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", thinned)
    longer = named(tokens, tmp_path, *LONG)
    with run_lock(short.run_folder, 0):
        _, said = go(longer)
    assert said[0].startswith(f"{eight} is no longer whole (") and said[0].endswith("passed over")
    assert said[1] == f"extends {short.run_folder} from step 4"
    assert not list((longer.run_folder / "checkpoints").glob(".*"))


def test_files_are_linked_and_copied_where_that_cannot_be(tokens, tmp_path, monkeypatch):
    short = named(tokens, tmp_path, *WSD)
    go(short)
    linked, copied = (
        named(tokens, tmp_path, *LONG, KEEP_ALL),
        named(tokens, tmp_path, *LONG, KEEP_ALL, "training.steps=21"),
    )
    go(linked)

    def refuses(*names, **options):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuses)
    shutil.rmtree(linked.run_folder / "checkpoints/step-000000016")
    shutil.rmtree(linked.run_folder / "checkpoints/step-000000012")
    assert "from step 8" in go(copied)[1][0]
    inodes = [
        {path.stat().st_ino for path in folder.glob("checkpoints/step-000000008/*.safetensors")}
        for folder in (short.run_folder, linked.run_folder, copied.run_folder)
    ]
    assert inodes[0] == inodes[1] and not inodes[0] & inodes[2]


class Dies:
    """Takes its process along, the `after`th time that it was called."""

    def __init__(self, called, after):
        self.called, self.after = called, after

    def __call__(self, *arguments):
        self.called(*arguments)
        self.after -= 1
        if not self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def begin_and_die(the_job: TrainingJob, moment: str) -> None:
    if moment == "linking":
        lineage._link = Dies(lineage._link, 2)
    else:
        origin.adopt = Dies(origin.adopt, 1)
    lineage.begin(the_job, print)


@pytest.mark.parametrize("moment", ["linking", "last"])
def test_fault_killed_in_the_middle_of_taking_over(tokens, tmp_path, moment):
    straight, _ = go(named(tokens, tmp_path / "straight", *LONG))
    short = named(tokens, tmp_path / "both", *WSD)
    go(short)
    long = named(tokens, tmp_path / "both", *LONG)
    killed = multiprocessing.get_context("fork").Process(target=begin_and_die, args=(long, moment))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert not checkpoint.checkpoints(long.run_folder) and list((long.run_folder / "checkpoints").glob(".step-*"))
    state, said = go(long)
    assert said[0] == f"extends {short.run_folder} from step 8"
    assert not list((long.run_folder / "checkpoints").glob(".*"))
    assert_same(state, straight)
    assert records_of(long.run_folder) == records_of(next((tmp_path / "straight").glob("demo*")))


def test_a_branch_goes_on_with_settings_of_its_own(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    at_8 = first.run_folder / "checkpoints/step-000000008"
    own = ("training.learning_rate=5e-4", "training.seed=3", "training.steps=14", "training.schedule=wsd")
    branched = named(tokens, tmp_path, EVERY_4, *own, branch_from=at_8)
    state, said = go(branched)
    assert said == [f"branches from {at_8} at step 8", "resuming from step 8"]

    model = build_model(branched.model, seed=None)
    model.load_state_dict(load_file(next(at_8.glob("model*.safetensors"))))
    moments = load_file(next(at_8.glob("optimizer*.safetensors")))
    optimizer = make_optimizer(model, branched.training)
    for name, parameter in model.named_parameters():
        kept = {key: moments[f"{key}.{name}"] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(8.0), **kept}
    data = TokenData.open(tokens)
    sampler = TokenSampler(data.train, branched.model.block_size, 4, seed=3)
    for step in range(8, 14):
        windows = torch.from_numpy(sampler.part(step, slice(0, 4))).long()  # (4, T + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, branched.training)
        logits = model(windows[:, :-1])  # (4, T, V)
        functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for (name, ours), theirs in zip(state.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")

    assert state.tokens == 14 * 4 * 32
    assert [step for kind, step in records_of(branched.run_folder) if kind == "train"] == list(range(9, 15))
    assert [point["step"] for point in state.validation] == [12, 14]
    found = runs.result(branched, state, data, "demo")
    assert found.adopted is None and found.branched is not None
    assert (found.branched.fingerprint, found.branched.step) == (first.fingerprint, 8)
    records = [record for record in RunLog(branched.run_folder).read() if record["kind"] == "train"]
    assert found.stepping_s == pytest.approx(sum(4 * 32 / record["tokens_per_s"] for record in records))
    assert found.stepping_s < found.wall_s < 60


def test_a_branch_is_known_by_its_content_and_can_be_extended(tokens, tmp_path):
    first = named(tokens, tmp_path / "a", *WSD)
    go(first)
    moved = tmp_path / "moved"
    shutil.copytree(first.run_folder, moved)
    (moved / "checkpoints/step-000000008").rename(moved / "checkpoints/backup")
    own = (*WSD, "training.seed=3", "training.steps=20")
    here, there, other = (
        named(tokens, tmp_path / "b", *own, branch_from=folder)
        for folder in (first.run_folder / "checkpoints/step-000000012", moved, moved / "checkpoints/backup")
    )
    assert here.fingerprint == there.fingerprint != other.fingerprint
    assert go(other)[1][0] == f"branches from {moved}/checkpoints/backup at step 8"
    go(here)
    longer = (*own, "training.steps=24")
    state, said = go(named(tokens, tmp_path / "b", *longer, branch_from=moved))
    assert said[0] == f"extends {here.run_folder} from step 16"
    straight, said = go(named(tokens, tmp_path / "c", *longer, branch_from=moved))
    assert said[0].startswith("branches from")
    assert_same(state, straight)


def test_a_branch_is_known_by_its_position_too(tokens, tmp_path):
    first = named(tokens, tmp_path, *WSD)
    go(first)
    path = checkpoint.checkpoints(first.run_folder)[-1] / "state.json"
    body, found = files.read_json(path), set()
    for change in ({}, {"skipped": 3}, {"tokens": 7}, {"step": 11}):
        files.write_json(path, {**body, **change})
        found.add(named(tokens, tmp_path, *LONG, "training.seed=3", branch_from=first.run_folder).fingerprint)
    assert len(found) == 4


def branch(tokens: Path, root: Path, origin_folder: Path, *changes: str) -> None:
    the_job = job(tokens, root, *changes, branch_from=origin_folder)
    found = Branch.of(the_job.training)
    assert found is not None
    found.check(the_job.model, the_job.training)


def test_what_cannot_be_branched_from_is_said_before_work(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    newest = first.run_folder / "checkpoints/step-000000012"
    branch(tokens, tmp_path, newest, "training.steps=13")
    for changes, text in [
        ([], r"at step 12: training.steps=12 must be more"),
        (["training.steps=20", "model.n_layer=1"], "another model: model.n_layer is 2 there and 1 here"),
        (["training.steps=20", "model.n_head=8"], "model.n_head is 4 there and 8 here"),
    ]:
        with pytest.raises(CheckpointError, match=text) as caught:
            branch(tokens, tmp_path, first.run_folder, *changes)
        assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    for folder in (tmp_path / "nowhere", tmp_path, tokens, newest / "state.json"):
        with pytest.raises(CheckpointError, match=rf"branch_from={folder}: no checkpoint there; must be"):
            branch(tokens, tmp_path, folder, "training.steps=20")
    next(newest.glob("optimizer*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"damaged, optimizer\S*.safetensors is missing"):
        branch(tokens, tmp_path, newest, "training.steps=20")
    (newest / "state.json").write_text(json.dumps(["step"]))
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        branch(tokens, tmp_path, newest, "training.steps=20")


def test_a_checkpoint_alone_is_enough_to_branch_from(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    shutil.copytree(first.run_folder / "checkpoints/step-000000008", tmp_path / "backup")
    branch(tokens, tmp_path, tmp_path / "backup")
    with pytest.raises(CheckpointError, match=r"model\.n_layer is 2 there and 1 here"):
        branch(tokens, tmp_path, tmp_path / "backup", "model.n_layer=1")


def test_fault_a_branch_whose_bytes_are_not_those_written(tokens, tmp_path):
    first = named(tokens, tmp_path, EVERY_4)
    go(first)
    flip_a_bit(next(first.run_folder.glob("checkpoints/step-000000012/model*")))
    the_job = named(tokens, tmp_path, "training.steps=20", branch_from=first.run_folder)
    with pytest.raises(CheckpointError, match=r"branch_from=\S*: \S* is damaged \(model"):
        runs.run(the_job, lambda line: None, lambda records: None)
    assert not checkpoint.checkpoints(the_job.run_folder)


def test_a_dry_run_says_what_is_wrong_with_a_branch(tokens, tmp_path, monkeypatch, capsys):
    words = [*TINY, *data_overrides(tokens), f"paths.data={tokens.parent}", f"paths.runs={tmp_path}", "debug=dry_run"]
    monkeypatch.setattr(sys, "argv", ["train", *words, f"training.branch_from={tmp_path}/gone"])
    code = launch(train_stage.run, "")
    said = capsys.readouterr()
    assert code == 2 and "Traceback" not in said.err
    assert f"training.branch_from={tmp_path}/gone: no checkpoint there" in said.out
