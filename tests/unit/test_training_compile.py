"""Every architecture trains in bfloat16 and compiled, and its losses stay those of plain float32."""

import functools

import pytest
import torch
from torch._dynamo.utils import counters

from pipeline.compose import compose
from pipeline.models.architectures import block_of, names
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.log import RunLog
from pipeline.training.loop import train
from tests.token_folder import write_token_folder

TRAINED = [name for name in names() if block_of(name).weights_of is None]
# half a minute together; all others are traced alike and run by torch's own kernels
INDUCTOR = (("standard", "float32"), ("kraken", "bfloat16"))
STEPS = 4
SETTINGS = [
    "model.n_layer=2",
    "model.n_embd=16",
    "model.vocab_size=512",
    "model.block_size=32",
    "model.init_std=0.02",
    "data.tokenizer_vocab_size=512",
    f"training.steps={STEPS}",
    "training.warmup_steps=1",
    "training.learning_rate=1e-2",
    "training.global_batch_size=4",
    "training.eval_interval=100",
    "training.eval_windows=4",
    "training.sample_tokens=4",
    "cluster.micro_batch_size=2",
    "cluster.log_interval=1",
]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_token_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(tokens, tmp_path_factory):
    """The float32 losses of an architecture, in eager mode."""

    @functools.cache
    def of(architecture: str) -> list[float]:
        return losses(tokens, tmp_path_factory.mktemp(architecture), architecture, "training.precision=float32")

    return of


def losses(tokens, folder, architecture: str, *changes: str) -> list[float]:
    """A run's training losses and its validation loss behind them."""
    ways = "_4way" if block_of(architecture).ways != "none" else ""
    config = compose([f"model=demo_{architecture}{ways}", *SETTINGS, *changes])
    train(
        TrainingJob(config.model, config.training, config.cluster, tokens, folder, "compiled"),
        Worker(),
        lambda metrics: None,
    )
    records = [record for record in RunLog(folder).read() if record["kind"] in ("train", "validation")]
    assert [record["kind"] for record in records] == ["train"] * STEPS + ["validation"]
    return [record["loss_nats"] for record in records]


@pytest.mark.parametrize("architecture", TRAINED)
def test_bfloat16_follows_float32(tokens, tmp_path, plain, architecture):
    found = losses(tokens, tmp_path, architecture, "training.precision=bfloat16")
    assert found != plain(architecture)  # autocast did something
    assert found == pytest.approx(plain(architecture), abs=2e-2)
    assert found[-1] < found[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", TRAINED)
def test_compiled_is_what_is_not_compiled(tokens, tmp_path, plain, monkeypatch, architecture, precision):
    if (architecture, precision) not in INDUCTOR:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    found = losses(tokens, tmp_path, architecture, "cluster.compile=true", f"training.precision={precision}")
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]  # one graph of the whole step
    assert found == pytest.approx(plain(architecture), abs=2e-2 if precision == "bfloat16" else 1e-4)
