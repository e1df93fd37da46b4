"""Schedule, optimizer groups, accumulation, exact resume, and the stop before a bad step."""

import json
import math

import pytest
import torch
from safetensors import SafetensorError

from pipeline.compose import compose, device_flops
from pipeline.errors import CheckpointError, OutputError
from pipeline.models import build_model
from pipeline.training import checkpoint
from pipeline.training.job import NonFiniteError, TrainingJob, Worker
from pipeline.training.log import RunLog, text_line
from pipeline.training.loop import train
from pipeline.training.optimizer import is_decayed, make_optimizer
from pipeline.training.schedule import learning_rate
from pipeline.training.state import TrainingState
from pipeline.training.throughput import peak_flops
from tests.token_folder import write_token_folder

TINY = [
    "model=demo_kraken_4way",
    "model.n_layer=2",
    "model.n_embd=16",
    "model.vocab_size=512",
    "model.block_size=32",
    "data.tokenizer_vocab_size=512",
    "training.steps=12",
    "training.warmup_steps=3",
    "training.global_batch_size=4",
    "training.eval_interval=6",
    "training.eval_windows=4",
    "training.sample_tokens=4",
    "cluster.micro_batch_size=4",
    "cluster.checkpoint_interval=6",
    "cluster.log_interval=1",
]


class KilledError(Exception):
    """Stands for a kill between two steps."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def job(tokens, folder, *changes: str) -> TrainingJob:
    config = compose([*TINY, *changes])
    folder.mkdir(parents=True, exist_ok=True)
    return TrainingJob(config.model, config.training, config.cluster, tokens, folder, "a-fingerprint")


def run(the_job: TrainingJob):
    return train(the_job, Worker(), lambda metrics: None)


def losses(folder) -> list[float]:
    return [record["loss_nats"] for record in RunLog(folder).read() if record["kind"] == "train"]


def test_schedule_against_hand_made_values():
    training = compose(["training.learning_rate=1.0", "training.steps=110", "training.warmup_steps=9"]).training
    assert learning_rate(0, training) == pytest.approx(0.1)
    assert learning_rate(8, training) == pytest.approx(0.9)
    assert learning_rate(9, training) == pytest.approx(1.0)  # the peak, where the cosine starts
    half = 9 + (110 - 9) / 2
    assert 0.5 * (
        learning_rate(math.floor(half), training) + learning_rate(math.ceil(half), training)
    ) == pytest.approx(0.55, abs=1e-3)
    assert learning_rate(110, training) == pytest.approx(0.1)  # a tenth of the peak


def test_decay_is_for_matrices_only():
    model = build_model(compose(["model=demo_kraken_4way"]).model)
    decayed = {name for name, parameter in model.named_parameters() if is_decayed(name, parameter)}
    assert {name.split(".", 2)[-1] for name in decayed if name.startswith("blocks")} == {
        "attn.qkv.weight",
        "attn.out.weight",
        "mlp.up.weight",
        "mlp.down.weight",
    }
    assert {"wte.weight", "wpe.weight", "concat.project.weight"} <= decayed
    assert "ln_f.weight" not in decayed
    groups = make_optimizer(model, compose([]).training).param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_fixed_seed_gives_the_same_curve_bit_for_bit(tokens, tmp_path):
    first, second = run(job(tokens, tmp_path / "a")), run(job(tokens, tmp_path / "b"))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    run(job(tokens, tmp_path / "c", "training.seed=2"))
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


@pytest.mark.parametrize(
    "model", ["demo_standard", "demo_parallel", "demo_kraken_4way", "demo_ladder", "demo_desync_4way"]
)
def test_every_architecture_learns(tokens, tmp_path, model):
    run(job(tokens, tmp_path / model, f"model={model}", *TINY[1:], "training.learning_rate=1e-2"))
    curve = losses(tmp_path / model)
    assert len(curve) == 12 and curve[-1] < curve[0] - 0.1


def test_twelve_steps_are_six_and_six_more(tokens, tmp_path):
    straight = run(job(tokens, tmp_path / "straight"))

    def kill(metrics: dict[str, float]) -> None:
        if metrics["step"] == 6:
            raise KilledError

    with pytest.raises(KilledError):
        train(job(tokens, tmp_path / "resumed"), Worker(), kill)
    assert len(losses(tmp_path / "resumed")) == 6
    resumed = run(job(tokens, tmp_path / "resumed"))
    assert resumed.step == straight.step == 12 and resumed.tokens == straight.tokens
    assert losses(tmp_path / "resumed") == losses(tmp_path / "straight")
    assert resumed.validation == straight.validation
    for (name, one), other in zip(straight.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other), name
    for name, moment in straight.named_moments().items():
        assert torch.equal(moment, resumed.named_moments()[name]), name


def test_a_resume_after_lost_steps_repeats_no_log_line(tokens, tmp_path):
    calls = []
    the_job = job(tokens, tmp_path)
    train(the_job, Worker(), lambda metrics: calls.append(metrics["step"]))
    newest = checkpoint.checkpoints(tmp_path)[-1]
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()  # as if killed after step 12 was logged and before it was saved
    run(the_job)
    steps = [record["step"] for record in RunLog(tmp_path).read() if record["kind"] == "train"]
    assert steps == list(range(1, 13))
    assert calls == [6, 12]


def test_accumulation_is_one_big_batch(tokens, tmp_path):
    whole = run(job(tokens, tmp_path / "whole"))
    parts = run(job(tokens, tmp_path / "parts", "cluster.micro_batch_size=1"))
    for (name, one), other in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other[1], atol=2e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
    assert losses(tmp_path / "whole") == pytest.approx(losses(tmp_path / "parts"), abs=1e-3)


def test_a_loss_that_is_no_number_never_reaches_the_weights(tokens, tmp_path):
    the_job = job(tokens, tmp_path, "training.learning_rate=1e30", "training.warmup_steps=1")
    with pytest.raises(NonFiniteError, match=r"step \d+: loss"):
        run(the_job)
    for folder in checkpoint.checkpoints(tmp_path):
        state = json.loads((folder / "state.json").read_text())
        assert state["step"] < 12


def test_a_checkpoint_of_another_run_is_refused(tokens, tmp_path):
    run(job(tokens, tmp_path))
    other = TrainingJob(**{**vars(job(tokens, tmp_path)), "fingerprint": "another"})
    with pytest.raises(CheckpointError, match="belongs to another run"):
        run(other)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # a weight or a moment, a little off: nothing but its hash tells
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda path: path.unlink()], ids=["cut", "bit", "gone"])
@pytest.mark.parametrize("name", ["model-0-0.safetensors", "optimizer-0-0.safetensors", "state.json"])
def test_fault_a_damaged_checkpoint_falls_back_to_the_one_before(tokens, tmp_path, name, damage):
    whole = run(job(tokens, tmp_path / "whole", "cluster.checkpoint_interval=4"))
    the_job = job(tokens, tmp_path / "hit", "cluster.checkpoint_interval=4")
    run(the_job)
    newest = checkpoint.checkpoints(the_job.run_folder)[-1]
    damage(newest / name)
    model = build_model(the_job.model, seed=None)
    state = TrainingState(model, make_optimizer(model, the_job.training), the_job.fingerprint)
    said: list[str] = []
    assert checkpoint.restore_latest(the_job.run_folder, state, said.append) == 8
    assert len(said) == 1 and newest.name in said[0] and said[0].endswith("going on from step 8")
    again = run(the_job)
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_fault_no_whole_checkpoint_is_one_message(tokens, tmp_path):
    run(job(tokens, tmp_path))
    for folder in checkpoint.checkpoints(tmp_path):
        cut(folder / "model-0-0.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged.*to start over"):
        run(job(tokens, tmp_path, "training.steps=13"))


def test_fault_what_a_killed_run_left_half_written_is_removed(tokens, tmp_path):
    left = tmp_path / "checkpoints/.step-000000003.77.tmp"
    left.mkdir(parents=True)
    (left / "model-0-0.safetensors").write_bytes(b"half")
    run(job(tokens, tmp_path))
    assert not left.exists()


def test_resume_behind_a_stop_that_was_asked_for(tokens, tmp_path):
    """The step in flight is the last, a checkpoint is written, and what follows is bit for bit the same."""
    whole = run(job(tokens, tmp_path / "whole", "cluster.checkpoint_interval=1000"))
    the_job = job(tokens, tmp_path / "stopped", "cluster.checkpoint_interval=1000")
    (the_job.run_folder / "stop").touch()
    assert run(the_job).step == 1
    (the_job.run_folder / "stop").unlink()
    again = run(the_job)
    assert again.step == the_job.training.steps
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_checkpoints_come_by_minutes_too(tokens, tmp_path):
    run(job(tokens, tmp_path, "cluster.checkpoint_interval=1000", "cluster.checkpoint_minutes=1e-9"))
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == ["step-000000011", "step-000000012"]


def test_two_checkpoints_are_kept(tokens, tmp_path):
    run(job(tokens, tmp_path, "cluster.checkpoint_interval=2"))
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == ["step-000000010", "step-000000012"]


def test_milestones_stay(tokens, tmp_path):
    changes = ["cluster.checkpoint_interval=2", "cluster.milestone_interval=3", "cluster.keep_checkpoints=1"]
    run(job(tokens, tmp_path / "cosine", *changes))
    assert [checkpoint.step_of(folder) for folder in checkpoint.checkpoints(tmp_path / "cosine")] == [3, 6, 9, 12]
    run(job(tokens, tmp_path / "wsd", "training.schedule=wsd", "training.decay_steps=5", "cluster.keep_checkpoints=1"))
    steps = [checkpoint.step_of(folder) for folder in checkpoint.checkpoints(tmp_path / "wsd")]
    assert steps == [7, 12]  # 7: the end of the plateau, which is none of the checkpoint interval


def test_fault_a_checkpoint_that_cannot_be_written_ends_the_run(tokens, tmp_path, monkeypatch):
    """The thread's error reaches the training; what was written before stays."""
    whole = checkpoint.save_file

    def full(tensors, path):
        if "step-000000009" in str(path):
            raise SafetensorError("No space left on device")
        whole(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*step-000000009: No space left"):
        run(job(tokens, tmp_path, "cluster.checkpoint_interval=3"))
    assert [checkpoint.step_of(folder) for folder in checkpoint.checkpoints(tmp_path)] == [3, 6]
    assert not list((tmp_path / "checkpoints").glob(".*"))
    monkeypatch.undo()
    assert run(job(tokens, tmp_path, "cluster.checkpoint_interval=3")).step == 12


def test_mfu_is_withheld_where_it_would_mislead():
    rates = device_flops()
    assert peak_flops("NVIDIA A100-SXM4-40GB", "bfloat16", rates) == 312e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16", rates) == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16", rates) == 756e12
    assert peak_flops("NVIDIA L4", "bfloat16", rates) == 121e12
    assert peak_flops("NVIDIA L40", "bfloat16", rates) is None  # neither the L4 nor the L40S
    assert peak_flops("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", rates) is None
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32", rates) is None
    assert peak_flops("Some New Card", "bfloat16", rates) is None


def test_a_log_line_has_what_a_reader_wants(tokens, tmp_path):
    run(job(tokens, tmp_path))
    records = RunLog(tmp_path).read()
    line = text_line(records[0], 12)
    for part in ("step  1/12", "loss", "lr", "grad", "tok/s", "GB", "ETA"):
        assert part in line
    assert {record["kind"] for record in records} == {"train", "validation", "sample"}
