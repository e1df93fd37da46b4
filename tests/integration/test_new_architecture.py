"""A newcomer's architecture: one file and one config in a copy of the tree, and everything works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = '''"""Relay: ways of their own that hand the mean of all on, one layer late, and add it to the residual."""

from typing import Any

from torch import Tensor

from pipeline.communication import Communicator
from pipeline.models.architectures.kraken import KrakenConcat
from pipeline.models.block import Block
from pipeline.models.cache import LayerCache


class RelayBlock(Block):
    """x_i = x_i + A_i(LN1 x_i) + mean over ways of x; then + F_i(LN2 ·)."""

    ways = "own"
    concat = KrakenConcat

    def forward(self, x: Tensor, communicator: Communicator, cache: LayerCache | None = None) -> Any:
        if self.layer == 0:
            x = x + self.attn(self.ln_1(x), cache)
            return x + self.mlp(self.ln_2(x))
        mean = communicator.start(x.sum(0, keepdim=True))
        h = self.attn(self.ln_1(x), cache)  # while the mean is on its way
        x = x + h + mean.wait() / self.n_ways
        return x + self.mlp(self.ln_2(x))
'''
CONFIG = """defaults: [demo_kraken_2way, _self_]
name: demo_relay_2way
architecture: relay
n_layer: 3
"""
SMALL = [
    "data.source=[numpy]",
    "data.max_bytes=600000",
    "data.tokenizer_vocab_size=512",
    "training.steps=12",
    "training.warmup_steps=1",
    "training.global_batch_size=4",
    "training.eval_interval=12",
    "training.eval_windows=4",
    "cluster.micro_batch_size=4",
    "cluster.checkpoint_interval=2",
    "tracking=none",
]
TIMED = [
    "benchmark.architectures=[standard,relay]",
    "benchmark.shapes=[{size: demo, models: {standard: demo_standard, relay: demo_relay_2way}}]",
    "benchmark.contexts=[32]",
    "benchmark.tp_sizes=[2]",
    "benchmark.derived={}",
]
ROUNDS = ["benchmark.warmup_max=2", "benchmark.repeats_min=3", "benchmark.repeats_max=4", "benchmark.time_limit_s=20"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the library with the two files added."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("pipeline", "stages", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pipeline/models/architectures/relay.py").write_text(BLOCK)
    (folder / "conf/model/demo_relay_2way.yaml").write_text(CONFIG)
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def run(tree: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command(*arguments), cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_new_architecture_takes_fewer_than_60_lines():
    assert len(BLOCK.splitlines()) + len(CONFIG.splitlines()) < 60


def test_a_new_architecture_is_described(tree):
    body = json.loads(run(tree, "stages.describe", "model=demo_relay_2way"))
    d, layers, ways, vocabulary, block_size = 114, 3, 2, 4096, 256
    per_way = layers * (8 * d * d + 2 * d) + d * d
    assert body["parameters"] == (vocabulary + block_size) * d + ways * per_way + d
    assert (body["collectives_per_forward"], body["blocking_collectives_per_forward"]) == (layers, 1)


def test_a_new_architecture_is_projected(tree):
    run(tree, "stages.project_ttft", *TIMED, "tracking=none")
    (path,) = (tree / "results/demo").glob("projection-*.json")
    rows = {row["architecture"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["relay"]["collectives"] == 3
    # two sums of three hide under attention
    assert rows["relay"]["exposed_communication_ms"] < rows["standard"]["exposed_communication_ms"]


def test_a_layout_that_is_untested_for_it_is_refused_by_name(tree):
    words = command("stages.build_engine", "model=demo_relay_2way", "engine=checkpoint", "engine.weights=random")
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run([*words, "engine.tp_size=2"], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "model.architecture=relay: engine=checkpoint exports" in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_new_architecture_from_training_to_the_report(tree):
    one = ["model=demo_relay_2way", *SMALL]
    run(tree, "stages.prepare_data", *SMALL)
    kill_at_the_first_checkpoint(tree, command("stages.train", *one))
    resumed = run(tree, "stages.train", *one)
    assert "from step" in resumed, resumed[-2000:]
    run(tree, "stages.evaluate_perplexity", *one)
    run(tree, "stages.evaluate_superglue", *one, "evaluation.limit=2", "evaluation.bootstrap_iters=20")
    if have_tensorrt():
        run(tree, "stages.build_engine", *one, "engine=tensorrt", "engine.tp_size=2")
        run(tree, "stages.build_engine", *one, "engine=tensorrt", "engine.tp_size=2", "engine.mode=segmented")
    run(tree, "stages.benchmark_ttft", *TIMED, *ROUNDS, "tracking=none")
    (path,) = (tree / "results/demo").glob("ttft-*.json")
    body = json.loads(path.read_text())
    rows = {row["architecture"]: row for row in body["rows"]}
    assert rows["relay"]["ranks_agree"] and rows["relay"]["own_share_hidden"] is not None  # timed without overlap too
    assert "no_communication" in rows
    assert {row["architecture"] for row in body["breakdown"]} == {"standard", "relay"}
    run(tree, "stages.report", "tracking=none")
    report = json.loads((tree / "report/report.json").read_text())
    assert report["faults"] == []
    (timed,) = (table for name, table in report["tables"].items() if name.startswith("ttft_"))
    assert {row["architecture"] for row in timed["rows"]} >= {"standard", "relay"}
    assert "demo_relay_2way" in json.dumps(report["tables"]["perplexity"])


def kill_at_the_first_checkpoint(tree: Path, arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(tree), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        arguments,
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(tree.glob("runs/**/*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def have_tensorrt() -> bool:
    try:
        import tensorrt_rtx  # noqa: F401
    except ImportError:
        return False
    return True


def test_an_unknown_architecture_is_one_line(tree):
    done = subprocess.run(
        command("stages.describe", "model=demo_standard", "model.architecture=realy"),
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such architecture; did you mean relay?" in done.stderr and "Traceback" not in done.stderr


UNKNOWN = BLOCK.replace("h = self.attn", "h = torch.tanh(x) + self.attn").replace(
    "from torch import Tensor", "import torch\nfrom torch import Tensor"
)


def test_a_forward_that_costs_cannot_follow_says_so(tree):
    (tree / "pipeline/models/architectures/unusual.py").write_text(UNKNOWN)
    done = subprocess.run(
        command("stages.describe", "model=demo_relay_2way", "model.architecture=unusual"),
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "architecture=unusual: its forward uses what cannot be counted" in done.stderr and "tanh" in done.stderr
