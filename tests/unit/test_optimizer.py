"""Clipping inside the fused kernel against torch's own, and memory that comes back."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.compose import compose
from pipeline.models import build_model
from pipeline.training.allocator import kept_memory
from pipeline.training.optimizer import clip, make_optimizer

ROOT = Path(__file__).resolve().parents[2]


def model_with_gradients(scale: float):
    model = build_model(compose(["model=demo_kraken_4way", "model.n_layer=1"]).model, seed=4)
    generator = torch.Generator().manual_seed(8)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("scale", [1.0, 1e-5], ids=["above", "below"])
@pytest.mark.parametrize("limit", [1.0, 0.25, 0.0])
def test_a_clipped_step_is_torchs_own(scale, limit):
    training = compose([]).training
    ours, theirs = model_with_gradients(scale), model_with_gradients(scale)
    mine, his = make_optimizer(ours, training), make_optimizer(theirs, training)
    for _ in range(2):
        clip(mine, torch.nn.utils.get_total_norm([one.grad for one in ours.parameters()]), limit)
        mine.step()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), limit or float("inf"))
        his.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(mine.state[one][moment], his.state[other][moment], rtol=2e-6, atol=1e-12)


def faults() -> int:
    """Page faults of four tensors of 64 MiB, one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_kept_memory_is_used_again_and_given_back():
    with kept_memory():
        faults()
        assert faults() < 100
        inside = psutil.Process().memory_info().rss
    assert inside - psutil.Process().memory_info().rss > 60 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.skipif(psutil.virtual_memory().available < 4e9, reason="takes 2.5 GB")
def test_more_than_two_gib_are_kept():
    """A larger threshold than an int's most would be needed; none at all is."""

    def use() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(64 << 20) for _ in range(10)]
        del tensors
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_memory():
        # what else the process holds lies between: the heap may grow by some tensors before nothing is faulted in
        assert min(use() for _ in range(5)) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_thread_has_kept_memory_where_there_is_one_arena():
    """Ray trains in a thread, and starts its workers with this variable."""
    code = (
        "import threading; from pipeline.training.allocator import kept_memory\n"
        "from tests.unit.test_optimizer import faults\n"
        "def run():\n"
        "    with kept_memory(): print(*[faults() for _ in range(4)])\n"
        "thread = threading.Thread(target=run); thread.start(); thread.join()"
    )
    last = {}
    for arenas in ("1", "8"):
        environment = {**os.environ, "MALLOC_ARENA_MAX": arenas}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
        last[arenas] = int(done.stdout.split()[-1])
    assert last["1"] < 100 < 10_000 < last["8"]  # the first one or two calls find their memory
