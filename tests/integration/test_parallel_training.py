"""One process, data-parallel workers, tensor-parallel ranks and FSDP take the same steps and resume one another."""

import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from pipeline import files
from pipeline.compose import compose
from pipeline.models import build_model
from pipeline.models.architectures import names
from pipeline.training import checkpoint
from pipeline.training.job import STOP, TrainingJob, Worker
from pipeline.training.log import RunLog
from pipeline.training.loop import train
from pipeline.training.optimizer import make_optimizer
from pipeline.training.state import TrainingState
from tests.token_folder import write_token_folder

RANKS = 4
STEPS = 50
TINY = [
    "model.n_layer=3",
    "model.n_embd=16",
    "model.vocab_size=512",
    "model.block_size=16",
    "data.tokenizer_vocab_size=512",
    f"training.steps={STEPS}",
    "training.warmup_steps=3",
    "training.learning_rate=1e-2",
    "training.global_batch_size=4",
    "training.eval_interval=50",
    "training.eval_windows=6",
    "training.sample_tokens=4",
    "cluster.micro_batch_size=1",
    "cluster.checkpoint_interval=50",
    "cluster.log_interval=1",
    "tracking=none",
]
LAYOUTS = {
    "copies": ["cluster.num_workers=4"],
    "ranks": ["cluster.tp_size=4"],
    "both": ["cluster.num_workers=2", "cluster.tp_size=2"],
    "sharded": ["cluster.num_workers=4", "cluster.fsdp=true"],
    "sharded ranks": ["cluster.num_workers=2", "cluster.tp_size=2", "cluster.fsdp=true"],
}
MODELS = {
    "standard": ["model=demo_standard", "model.bias=true"],
    "parallel": ["model=demo_parallel", "model.bias=true"],
    "ladder": ["model=demo_ladder"],
    "desync": ["model=demo_desync_4way"],
    "kraken": ["model=demo_kraken_4way"],
    "parallel_track": ["model=demo_parallel_track_4way"],
}


def job(tokens: Path, folder: Path, *changes: str) -> TrainingJob:
    config = compose([*changes[:1], *TINY, *changes[1:]])
    folder.mkdir(parents=True, exist_ok=True)
    return TrainingJob(config.model, config.training, config.cluster, tokens, folder, "a-fingerprint")


def stop_at(run_folder: Path, step: int):
    """Ask for an end once the checkpoint of `step` is begun."""

    def report(metrics: dict[str, float]) -> None:
        if metrics["step"] == step:
            (run_folder / STOP).touch()

    return report


def rank(rank: int, rendezvous: str, jobs: list[tuple[TrainingJob, int]]) -> None:
    """What each of RANKS processes runs: jobs one after another, each stopped behind the step beside it."""
    warnings.simplefilter("error")  # FSDP's doubts about a model's outputs
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    os.environ.pop("RANK", None)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    for one, stop in jobs:
        if rank == 0:
            (one.run_folder / STOP).unlink(missing_ok=True)
        train(one, Worker(rank, RANKS), stop_at(one.run_folder, stop) if rank == 0 else lambda metrics: None)
    dist.destroy_process_group()


def over_ranks(folder: Path, jobs: list[tuple[TrainingJob, int]]) -> None:
    rendezvous = folder / f"rendezvous-{len(list(folder.glob('rendezvous-*')))}"
    mp.spawn(rank, (str(rendezvous), jobs), nprocs=RANKS)


def losses(folder: Path) -> list[float]:
    return [record["loss_nats"] for record in RunLog(folder).read() if record["kind"] == "train"]


def validation(folder: Path) -> list[float]:
    return [record["loss_nats"] for record in RunLog(folder).read() if record["kind"] == "validation"]


def state_at(job: TrainingJob, step: int) -> dict[str, torch.Tensor]:
    """Weights and moments of a checkpoint, put together in one process."""
    model = build_model(job.model, seed=None)
    state = TrainingState(model, make_optimizer(model, job.training), job.fingerprint)
    checkpoint.restore(job.run_folder, step, state)
    return state.named_weights() | state.named_moments()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


def test_every_layout_takes_the_steps_of_one_process(tokens, tmp_path):
    assert set(MODELS) == {name for name in names() if name != "standard_split"}  # which has no weights to train
    cases = [
        (model, layout)
        for model in MODELS
        for layout in (LAYOUTS if model in ("standard", "kraken") else ("both", "sharded ranks"))
    ]
    for model, shape in MODELS.items():
        train(job(tokens, tmp_path / model / "alone", *shape), Worker(), lambda metrics: None)
    over_ranks(tmp_path, [(job(tokens, tmp_path / one / at, *MODELS[one], *LAYOUTS[at]), 0) for one, at in cases])
    for model, layout in cases:
        alone, folder = tmp_path / model / "alone", tmp_path / model / layout
        assert len(losses(alone)) == STEPS and losses(alone)[-1] < losses(alone)[0] - 0.5, model
        assert losses(folder) == pytest.approx(losses(alone), abs=1e-5), (model, layout)
        assert validation(folder) == pytest.approx(validation(alone), abs=1e-5), (model, layout)


def test_resume_in_another_layout(tokens, tmp_path):
    """One process begins; ranks, sharded ranks and copies go on in turn; one process ends it."""
    turns = ("ranks", "sharded ranks", "copies")
    kept = ("cluster.checkpoint_interval=10", "training.eval_interval=10", "cluster.keep_checkpoints=9")
    begun, jobs = {}, []
    for model in ("standard", "kraken"):  # Megatron's shards, and ways
        folder, shape = tmp_path / model / "moved", [*MODELS[model], *kept]
        begun[model] = job(tokens, folder, *shape)
        train(begun[model], Worker(), stop_at(folder, 10))
        jobs += [(job(tokens, folder, *shape, *LAYOUTS[at]), 20 + 10 * turn) for turn, at in enumerate(turns)]
    over_ranks(tmp_path, jobs)
    for model, moved in begun.items():
        folder, alone = moved.run_folder, tmp_path / model / "alone"
        states = {one.name: files.read_json(one / "state.json") for one in checkpoint.checkpoints(folder)}
        parts = {state["step"]: (state["layout"]["tp_size"], state["layout"]["shards"]) for state in states.values()}
        assert {step: parts[step] for step in (11, 21, 31, 41)} == {11: (1, 1), 21: (4, 1), 31: (2, 2), 41: (1, 1)}
        (folder / STOP).unlink()
        train(moved, Worker(), lambda metrics: None)
        straight = job(tokens, alone, *MODELS[model], *kept)
        train(straight, Worker(), lambda metrics: None)
        assert losses(folder) == pytest.approx(losses(alone), abs=1e-5)
        for step in (20, 30, 40, 50):  # written behind a validation, which gathers what FSDP has cut
            ours, theirs = (state_at(one, step) for one in (moved, straight))
            for name, tensor in ours.items():
                if "qkv.bias" not in name:  # no loss depends on a key's bias: AdamW moves it by rounding alone
                    assert torch.allclose(tensor, theirs[name], atol=1e-4), (model, step, name)


def test_half_precision_over_ranks_stays_near(tokens, tmp_path):
    shape = [*MODELS["kraken"], "training.precision=bfloat16", "training.steps=8"]
    train(job(tokens, tmp_path / "alone", *shape), Worker(), lambda metrics: None)
    over_ranks(tmp_path, [(job(tokens, tmp_path / "ranks", *shape, *LAYOUTS["ranks"]), 0)])
    assert losses(tmp_path / "ranks") == pytest.approx(losses(tmp_path / "alone"), abs=0.02)
