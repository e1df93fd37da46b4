"""The parts of the command for a GPU machine, each rehearsed at tiny shapes: its figures and what it refuses."""

import shutil
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.gpu import marked, overlap, parts, resume, run_part, settings, tokens, training, ttft
from benchmarks.gpu.part import Wanted
from benchmarks.gpu.place import Place
from benchmarks.gpu.results import Figure, GpuResult
from pipeline.benchmark.protocol import Rounds
from pipeline.data import TokenData
from pipeline.errors import RunError
from pipeline.training import checkpoint
from pipeline.training.loop import train
from pipeline.training.state import TrainingState

BY_NAME = {part.name: part for part in parts.PARTS}


@pytest.fixture
def tiny():
    return settings.tiny(settings.read())


@pytest.fixture
def place(tmp_path):
    return Place(torch.device("cpu"), True, tmp_path / "out", tmp_path / "unfinished")


def test_an_answer_counts_for_its_settings_and_shape_alone(place, tiny):
    part = BY_NAME["train_standard"]
    result = GpuResult(
        part=part.name, identity=part.identity(place, tiny), device=place.name, rehearsal=True, wall_s=1, figures=[]
    )
    place.results.mkdir()
    place.result_path(part.name).write_text(result.model_dump_json())
    assert part.result(place, tiny) == result
    faster = tiny.model_copy(update={"training": tiny.training.model_copy(update={"learning_rate": 1.0})})
    assert part.result(place, faster) is None
    assert part.result(replace(place, tiny=False), tiny) is None
    place.result_path(part.name).write_text("{")
    assert part.result(place, tiny) is None


def test_made_up_tokens_are_a_data_folder_with_the_frequencies_of_words(tmp_path):
    sizes = {"train": 50_000, "val": 5_500}
    folder = tokens.write(tmp_path / "a", 500, sizes)
    data = TokenData.open(folder)
    assert (data.train.tokens, data.val.tokens) == (50_000, 5_500)
    counts = np.bincount(data.train.read(0, 50_000), minlength=500)
    share = 1 / sum(1 / k for k in range(1, 501))
    assert len(counts) == 500 and counts[:3] / 50_000 == pytest.approx([share, share / 2, share / 3], rel=0.1)
    again = TokenData.open(tokens.write(tmp_path / "b", 500, sizes))
    assert again.manifest["shards"] == data.manifest["shards"]


def test_training_gives_its_figures_and_the_micro_batch_that_fits(place, tiny, monkeypatch, tmp_path):
    taken = []

    def short_of_memory(job, worker, report):
        taken.append((job.cluster.micro_batch_size, job.training.steps))
        if job.cluster.micro_batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return train(job, worker, report)

    monkeypatch.setattr(training, "train", short_of_memory)
    monkeypatch.setattr(training, "peak_flops", lambda *given: 1e12)
    part = BY_NAME["train_standard"]
    result = run_part.run(part, place, tiny)
    assert taken == [(2, 5), (1, 5), (1, 20)]  # 4 is not tried where 2 does not fit
    assert result == part.result(place, tiny).model_copy(update={"provenance": None})
    assert {one.name for one in result.figures} == {one.name for one in part.wanted}
    assert result.value("micro-batch") == 1 and result.value("losses finite") == 1
    assert result.value("last loss") < result.value("first loss")
    rate = sorted(point.tokens_per_s for point in result.curve[1:])[1]
    assert result.value("tokens a second") == rate
    per_token = training.count.training_flops_per_token(tiny.model("standard_124m"))
    assert result.value("MFU") == pytest.approx(rate * per_token / 1e12)


def test_a_run_that_outgrows_the_memory_goes_on_with_half_the_micro_batch(place, tiny, monkeypatch, tmp_path):
    left = [0, 0, 10]  # the third run dies behind its first checkpoint

    def outgrowing(job, worker, report):
        dies_at = left.pop(0) if left else 0

        def watching(values):
            if dies_at and values["step"] >= dies_at:
                raise RuntimeError("cublasCreate: CUBLAS_STATUS_ALLOC_FAILED")

        return train(job, worker, watching)

    monkeypatch.setattr(training, "train", outgrowing)
    monkeypatch.setattr(training, "_pays", lambda found, before: found is not None)
    part = BY_NAME["train_kraken"]
    found = part.run(part, place, tiny, tmp_path)
    figures = {one.name: one.value for one in found.figures}
    assert figures["micro-batch"] == 2
    assert [point.step for point in found.more["curve"]] == [5, 10, 15, 20]


def test_a_slow_device_accumulates_less(place, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "_try", lambda *given: (32 * 20 * 3 / training.STEPPING_S, 1.5))
    choice = training._choice("standard_124m", place, tiny, tmp_path)
    assert (choice.micro_batch_size, choice.global_batch_size, choice.compile_s) == (2, 2, 1.5)


class KilledError(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def in_this_process():
    """The runs of the resume part in this process, and their names as they end."""
    ended = []

    def in_process(job, device, kernels, killed_at):
        def report(values):
            if killed_at and values["step"] >= killed_at:
                raise KilledError

        try:
            train(job, training.Worker(device=device), report)
        except KilledError:
            assert checkpoint.checkpoints(job.run_folder)[-1].name.endswith(f"{killed_at}")
        ended.append(job.run_folder.parent.name)

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # made before the fixture of every test that does the same
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resume, "_in_process", in_process)
        yield ended
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compared(in_this_process, tmp_path_factory):
    """A folder in which the resume part ran, and what it found."""
    folder = tmp_path_factory.mktemp("resume")
    place = Place(torch.device("cpu"), True, folder / "out", folder / "unfinished")
    part = BY_NAME["resume"]
    found = part.run(part, place, settings.tiny(settings.read()), folder)
    assert in_this_process == ["whole", "killed", "killed"]
    return folder, found


def test_resume_compares_bit_for_bit(compared):
    _, found = compared
    assert {one.name: one.value for one in found.figures} == {
        "losses identical": 1,
        "weights and moments identical": 1,
        "largest difference of a loss": 0,
        "largest difference of a weight or moment": 0,
    }


def test_resume_sees_one_bit_of_one_moment_and_a_lost_step(compared, in_this_process, place, tiny, tmp_path):
    shutil.copytree(compared[0] / "only", tmp_path / "only")
    job = resume._job(tiny, place, tmp_path / "only" / "whole")
    path = next(checkpoint.checkpoints(job.run_folder)[-1].glob("optimizer*.safetensors"))
    tensors = load_file(path)
    tensors[min(tensors)].view(-1)[0].nextafter_(torch.tensor(torch.inf))
    save_file(tensors, path)
    in_this_process.clear()
    losses, weights = resume._compare(tiny, place, tmp_path / "only", "only")
    assert losses == 0 and 0 < weights < 1e-6
    assert "whole" not in in_this_process  # it went through in one go before
    log = job.run_folder / "log.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"step": 12,' not in line))
    with pytest.raises(RunError, match="each of 20 steps"):
        resume._loss_difference(job, job)


def test_a_broken_resume_is_seen_where_the_run_left_alone_was_interrupted(
    in_this_process, place, tiny, monkeypatch, tmp_path
):
    real = TrainingState.restore_moments
    zeros = defaultdict(lambda: torch.zeros(()))
    monkeypatch.setattr(TrainingState, "restore_moments", lambda self, moments: real(self, zeros))
    monkeypatch.setattr(resume, "STEPS", 6)
    monkeypatch.setattr(resume, "KILLED_AT", 3)
    resume._in_process(resume._job(tiny, place, tmp_path / "whole"), place.device, "only", killed_at=3)
    losses, tensors = resume._compare(tiny, place, tmp_path, "only")
    assert losses > 0 and tensors > 0


def test_a_run_killed_without_a_checkpoint_shows_nothing(place, tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(resume, "_in_process", lambda *given, **killed_at: None)
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        resume._compare(tiny, place, tmp_path, "only")


def test_overlap_is_what_waiting_costs_less_what_is_left(place, tiny, monkeypatch, tmp_path):
    part = BY_NAME["overlap"]
    found = part.run(part, place, tiny, tmp_path)
    assert {one.name for one in found.figures} >= {f"a collective of {each} us took" for each in overlap.MICROSECONDS}
    times = {"skipped": 10.0, "overlapped": 12.0, "blocking": 18.0}

    def known(self, variants, prompt, agree, rules):
        samples = {one.key: [times[one.mode]] * 3 for one in variants}
        return Rounds(samples, {}, 1, 1.0, "interval")

    monkeypatch.setattr(overlap.Bench, "rounds", known)
    figures = {one.name: one.value for one in part.run(part, place, tiny, tmp_path).figures}
    assert figures["hidden of 50 us: kraken"] == pytest.approx(0.75)
    assert figures["a collective of 50 us took"] == pytest.approx((8e3 / 8 + 8e3 / 4) / 2)  # 8 collectives, 4 in Kraken


def test_ttft_is_kept_size_by_size(place, tiny, monkeypatch, tmp_path):
    part = BY_NAME["ttft_tp4"]
    tiny = tiny.model_copy(update={"benchmark": tiny.benchmark.model_copy(update={"contexts": [128]})})
    measured = []
    real = ttft.one_rank.measure

    def once(benchmark, *rest):
        (shape,) = benchmark.shapes
        measured.append(shape.size)
        if len(measured) == 2:
            raise KilledError
        return real(benchmark, *rest)

    monkeypatch.setattr(ttft.one_rank, "measure", once)
    with pytest.raises(KilledError):
        part.run(part, place, tiny, tmp_path)
    found = part.run(part, place, tiny, tmp_path)
    assert measured == ["1.3B", "6.7B", "6.7B"]
    result = found.more["ttft"]
    assert {row.size for row in result.rows} == {"1.3B", "6.7B"}
    figures = {one.name: one for one in found.figures}
    (row,) = [
        one
        for one in result.rows
        if (one.architecture, one.size, one.context) == ("kraken", "6.7B", 128) and one.kind == ttft.MODELLED
    ]
    assert figures["6.7B, T=128: Kraken's speedup"].value == row.speedup
    assert figures["6.7B, T=128: Kraken's speedup"].kind == ttft.MODELLED


def test_every_test_for_gpus_is_found():
    found = {path.name for path in marked.test_files()}
    assert {"test_communicators.py", "test_ttft_gpus.py"} <= found


def test_outcomes_of_marked_tests_are_counted_and_one_that_fails_keeps_no_answer(place, tiny, monkeypatch, tmp_path):
    marks = "import pytest\npytestmark = pytest.mark.gpu\n"
    good = "def test_a(): pass\ndef test_c(): pytest.skip('one GPU')\n"
    path = tmp_path / "test_some.py"
    monkeypatch.setattr(marked, "test_files", lambda: [path])
    monkeypatch.setattr(marked, "ROOT", tmp_path)
    part = replace(BY_NAME["tests"], settings=lambda given: {})
    path.write_text(marks + good + "def test_b(): assert 0, 'wrong sum'\n")
    with pytest.raises(
        RunError, match=r"passed: 1, failure: 1, error: 0, skipped: 1.*\n.*one GPU\n.*test_b.*wrong sum"
    ):
        run_part.run(part, place, tiny)
    path.write_text(marks + "@pytest.fixture\ndef gone():\n    yield\n    assert 0\ndef test_d(gone): pass\n")
    with pytest.raises(RunError, match="error: 1") as failed:
        run_part.run(part, place, tiny)
    assert failed.value.exit_code == 1 and part.any_result(place.results) is None
    path.write_text(marks + good)
    found = run_part.run(part, place, tiny)
    assert [(one.name, one.value) for one in found.figures] == [("passed", 1), ("skipped", 1)]
    assert len(found.notes) == 1 and "one GPU" in found.notes[0]
    path.unlink()
    with pytest.raises(RunError, match="ran no test"):
        marked._run(part, place, tiny, tmp_path)


def test_a_figure_that_was_not_announced_is_refused():
    part = replace(BY_NAME["resume"], wanted=(Wanted("seconds", "s"),))
    assert part.figure("seconds", 2) == Figure(kind="measured", name="seconds", value=2.0, unit="s")
    with pytest.raises(KeyError):
        part.figure("minutes", 2)
