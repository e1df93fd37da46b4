"""Runs that go on from shorter ones with the same past, and what keeps a run from it."""

import errno
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from pipeline import files
from pipeline.data import TokenData
from pipeline.training import checkpoint, lineage, origin
from pipeline.training import run as runs
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.loop import train
from tests.token_folder import write_token_folder
from tests.unit.extended_runs import (
    EVERY_4,
    LONG,
    WSD,
    assert_same,
    go,
    named,
    records_of,
    without_ray,  # noqa: F401, a fixture of every test here
)
from tests.unit.test_training import KilledError, flip_a_bit, losses

KEEP_ALL = "cluster.keep_checkpoints=9"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def steps_of(run_folder: Path) -> list[int]:
    return [checkpoint.step_of(folder) for folder in checkpoint.checkpoints(run_folder)]


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
