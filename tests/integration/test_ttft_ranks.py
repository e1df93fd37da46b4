"""Real gloo ranks: the same logits as one process, ranks that die or hang, and nothing left behind."""

import os
import signal
import threading
import time
from dataclasses import replace

import psutil
import pytest
import torch

from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.errors import RunError
from pipeline.models import architectures, build_model
from pipeline.models.checkpoint import save_model
from tests.unit.test_models import config, perturbed

pytestmark = pytest.mark.slow

TOKENS = [[5, 3, 60, 0, 17, 17, 2, 33, 9, 1, 1, 7], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 63, 62]]
RULES = {
    "warmup_min": 1,
    "warmup_max": 2,
    "repeats_min": 3,
    "repeats_max": 3,
    "interval_width": 0.5,
    "time_limit_s": 20.0,
}


def spec(tp_size: int, folder, **changes) -> RankSpec:
    plain = RankSpec(
        tp_size=tp_size,
        store=str(folder / "store"),
        device="cpu",
        dtype="float32",
        threads=1,
        cores=[],
        transport="gloo",
        interfaces=["lo"] * tp_size,
        timeout_s=120.0,
        seed=1,
        cuda_graph=False,
    )
    return replace(plain, **changes)


def cases():
    """A small model of every architecture there is."""
    ways = {name: 1 if architectures.block_of(name).ways == "none" else 4 for name in architectures.names()}
    return {name: config(name, n_ways) for name, n_ways in ways.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One whole model an architecture, on disk, and its logits in one process."""
    folder = tmp_path_factory.mktemp("trained")
    expected = {}
    for name, shape in cases().items():
        model = perturbed(shape)
        save_model(folder / name, model)
        with torch.inference_mode():
            expected[name] = model(torch.tensor(TOKENS))
    return folder, expected


@pytest.mark.parametrize(("tp_size", "transport"), [(2, "gloo"), (2, "socket"), (4, "gloo"), (4, "socket")])
def test_tensor_parallel_logits_equal_one_process(trained, tmp_path, tp_size, transport):
    folder, expected = trained
    with (
        make_links(["loopback"], tp_size) as links,
        RankGroup(spec(tp_size, tmp_path, transport=transport), links, 60) as ranks,
    ):
        raw = {name: shape.model_dump(mode="json") for name, shape in cases().items()}
        ranks.command("load", models=raw, folders={name: str(folder / name) for name in raw})
        for name in raw:
            ranks.command("logits", architecture=name, tokens=TOKENS, path=str(tmp_path / name))
        measured = ranks.command("measure", context=12, batch_size=2, rules=RULES)
        again = ranks.command("measure", context=12, batch_size=2, rules=RULES, with_details=False)
        rates = ranks.command("matrix_rate")
        joules = ranks.command("energy", context=12, batch_size=2, repeats={"standard": 2, "kraken": 1})
        decoded = ranks.command("decode", context=8, batch_size=2, new_tokens=3, repeats=1)
    for name, logits in expected.items():
        for rank in range(tp_size):
            got = torch.load(tmp_path / f"{name}.{rank}")
            torch.testing.assert_close(got, logits, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert measured[0]["samples_ms"] == measured[-1]["samples_ms"]  # the maximum over ranks, agreed on by all
    for name, details in measured[0]["details"].items():
        assert details["ranks_agree"], name
    assert "details" not in again[0] and again[0]["samples_ms"].keys() == measured[0]["samples_ms"].keys()
    assert all(1e8 < rate < 1e13 for rate in rates)  # FLOP/s of a core or two
    assert all(one.keys() == {"standard", "kraken"} for one in joules)
    assert measured[0]["counts_energy"] or joules == [{"standard": 0.0, "kraken": 0.0}] * tp_size
    layers, width = 3, 24 * 4 * 2 * 12  # bytes of one (2, 12, 24) float32 stream
    assert measured[0]["details"]["standard"]["collectives"] == 2 * layers
    assert measured[0]["details"]["kraken"]["collectives"] == layers
    assert measured[0]["details"]["standard"]["bytes"] == 2 * (layers - 1) * width + 2 * width // 12  # the last layer's
    assert measured[0]["details"]["kraken"]["bytes"] == (layers - 2) * width + 2 * width // 12  # carry one token
    assert measured[0]["details"]["standard_split"]["collectives"] == 4 * layers - 2
    assert measured[0]["details"]["standard_split"]["bytes"] == measured[0]["details"]["standard"]["bytes"]
    assert all(len(steps) == 3 for rounds in decoded[0].values() for steps in rounds)


@pytest.fixture
def group(tmp_path):
    with make_links(["loopback"], 2) as links:
        yield RankGroup(spec(2, tmp_path), links, timeout_s=5.0)


def busy(ranks: RankGroup) -> None:
    """Keep the ranks measuring for longer than the test waits."""
    ranks.command("load", models={"standard": cases()["standard"].model_dump(mode="json")}, folders={})
    ranks.command(
        "measure",
        context=12,
        batch_size=1,
        rules=RULES | {"repeats_min": 10**9, "repeats_max": 10**9, "time_limit_s": 600.0},
    )


def test_a_killed_rank_ends_everything_and_is_named(group):
    begun = time.monotonic()
    with (
        pytest.raises(RunError, match=r"rank 1 died \(killed by SIGKILL\)[\s\S]*last lines of rank 1's log"),
        group as ranks,
    ):
        pids = [process.pid for process in ranks.processes]
        threading.Timer(1.5, os.kill, (pids[1], signal.SIGKILL)).start()
        busy(ranks)
    assert time.monotonic() - begun < 30
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_hung_rank_is_named_and_ended(group):
    with pytest.raises(RunError, match=r"rank 1 hangs: no progress for 5 s[\s\S]*no heartbeat"), group as ranks:
        pids = [process.pid for process in ranks.processes]
        threading.Timer(1.5, os.kill, (pids[1], signal.SIGSTOP)).start()
        busy(ranks)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_rank_that_fails_shows_its_log(group):
    with pytest.raises(RunError, match=r"died \(exit status 1\)[\s\S]*KeyError: 'kraken'"), group as ranks:
        ranks.command("logits", architecture="kraken", tokens=TOKENS, path="unused")


def test_a_shard_is_built_without_the_whole_model(monkeypatch):
    """Random weights come straight on the shard: no tensor of the whole model's size is ever made."""
    from pipeline.benchmark.ranks.bench import Bench
    from pipeline.models import Placement

    shape = config("kraken", 4, n_embd=48)
    whole = sum(parameter.numel() for parameter in build_model(shape, device="meta", seed=None).blocks.parameters())
    bench = Bench(Placement(1, 4), torch.device("cpu"), "float32", 1337, False, {})
    bench.build({"kraken": shape}, {}, shared=False)
    model = bench.engines["kraken"].model
    assert sum(parameter.numel() for parameter in model.blocks.parameters()) * 4 == whole
