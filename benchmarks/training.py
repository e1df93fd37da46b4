"""How fast training is, and how far from what its products and attention alone would take.

    python -m benchmarks.training [--shape demo d384 124m] [--only standard kraken …] [--rounds N]
        [--threads N] [--clock cpu] [--no-memory] [--json results/benchmarks/training.json]

Whole steps of the training loop (data, forward, backward, clipping, AdamW) in float32 on the CPU, on tokens made up
in a temporary folder. Every architecture takes turns with its floor, the products and attention of a step forward and
backward; standard (with biases) also with transformers' GPT-2, as published and with its GELU in one kernel, Kraken
with a loop over ways, all with the same weights, data, optimizer and step. Medians over rounds; ratios with their 95%
interval. Peak memory is that of a fresh process (Linux) above what it held before, once with our chunked loss and once
with the logits whole. By default all architectures of the two smaller shapes, and standard, parallel and Kraken at
124M: about ten minutes on two idle cores.

`--clock cpu`: one thread, and its CPU time in place of the wall's: for a machine that others use too.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.gpu import tokens
from benchmarks.training_rivals import HuggingFace, HuggingFaceOneKernel, LoopOverWays, WholeLogits, floor
from pipeline import files, provenance
from pipeline.benchmark.protocol import rotated
from pipeline.compose import compose, device_flops
from pipeline.config import Config
from pipeline.data import TokenData, TokenSampler
from pipeline.models import count
from pipeline.results.statistics import Compared, speedup_interval
from pipeline.training.allocator import kept_memory
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.optimizer import make_optimizer
from pipeline.training.parallel import Gradients, Layout
from pipeline.training.step import Stepper
from pipeline.training.throughput import peak_flops

WARMUP = 2
IDLE = 0.5  # load average below which nobody else computes
RIVALS: dict[str, dict[str, Callable[[Any], nn.Module]]] = {
    "standard": {"transformers": HuggingFace, "the same, GELU in one kernel": HuggingFaceOneKernel},
    "kraken": {"loop over ways": LoopOverWays},
}
FOUR_WAYS = ("kraken", "desync", "parallel_track")


@dataclass(frozen=True)
class Shape:
    """Sizes, how often they are timed, and what is to be reached."""

    model: str  # config name without architecture and ways
    batch_size: int  # sequences of 256 tokens a step, in one micro-batch
    rounds: int
    architectures: tuple[str, ...]
    floor_share: float  # to reach: the floor's time over a step's
    over: dict[str, float]  # to reach: a rival's time over ours
    changes: dict[str, tuple[str, ...]]  # by architecture; "" for all others

    def config(self, architecture: str) -> Config:
        name = self.model.format(f"{architecture}", "_4way" if architecture in FOUR_WAYS else "")
        changes = self.changes.get(architecture, self.changes.get("", ()))
        bias = ["model.bias=true"] if architecture == "standard" else []  # as GPT-2 has them
        step = [f"training.global_batch_size={self.batch_size}", f"cluster.micro_batch_size={self.batch_size}"]
        return compose([f"model={name}", "model.block_size=256", "training.precision=float32", *step, *bias, *changes])


ALL = ("standard", "parallel", "kraken", "ladder", "desync", "parallel_track")
L6 = "model.n_layer=6"
SHAPES = {
    "demo": Shape("demo_{}{}", 2, 15, ALL, 0.80, {"transformers": 1.10, "loop over ways": 1.25}, {}),
    "d384": Shape(
        "demo_{}{}", 4, 9, ALL, 0.88, {"transformers": 1.10, "loop over ways": 1.25},
        {
            "": (L6, "model.n_embd=384", "model.n_head=6"),
            "kraken": (L6, "model.n_embd=256", "model.n_head=16"),
            "desync": (L6, "model.n_embd=384", "model.n_head=8"),
            "parallel_track": (L6, "model.n_embd=384", "model.n_head=8"),
        },
    ),
    "124m": Shape("{}_124m{}", 4, 6, ("standard", "parallel", "kraken"), 0.88, {}, {}),
}  # fmt: skip


def stepper(config: Config, folder: Path, rival: Callable[[Any], nn.Module] | None = None) -> Stepper:
    """The pipeline's own step, of our model or of a rival's module with its weights."""
    job = TrainingJob(config.model, config.training, config.cluster, folder, folder, "benchmark", device_flops())
    data = TokenData.open(_tokens(config, folder))
    sampler = TokenSampler(data.train, config.model.block_size, config.training.global_batch_size, config.training.seed)
    made = Stepper(job, Worker(), Layout(), sampler)
    if rival is not None:
        module = rival(made.state.model)
        made.loss = made.wrapped = made.compiled = module
        made.gradients = Gradients(module, Layout())
        made.state.model, made.state.optimizer = module, make_optimizer(module, config.training)
    return made


def _tokens(config: Config, folder: Path) -> Path:
    vocab_size = config.model.vocab_size
    return tokens.write(folder / f"tokens-{vocab_size}", vocab_size, {"train": 400_000, "val": 20_000})


def measure(shape: Shape, architecture: str, rounds: int, clock: Callable[[], float], folder: Path) -> dict[str, Any]:
    """One architecture, its rivals and its floor in turn: a row of the result."""
    config = shape.config(architecture)
    ours = stepper(config, folder)
    work: dict[str, Callable[[], object]] = {"ours": ours.take}
    others = {label: stepper(config, folder, rival) for label, rival in RIVALS.get(architecture, {}).items()}
    work |= {label: other.take for label, other in others.items()}
    row: dict[str, Any] = {"architecture": architecture, "model": config.model.model_dump(mode="json")}
    rows = shape.batch_size * config.model.block_size
    work["floor"] = floor(ours.state.model, rows, shape.batch_size)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + WARMUP):
        for name in rotated(list(work), turn):
            begun = clock()
            work[name]()
            if turn >= WARMUP:
                seconds[name].append(clock() - begun)
    flops = count.training_flops_per_token(config.model)
    rate = rows / statistics.median(seconds["ours"])
    peak = peak_flops(provenance.cpu_name(), config.training.precision, device_flops())
    row |= {
        "tokens_per_step": rows,
        "tokens_per_s": rate,
        "flops_per_s": rate * flops,
        "mfu": None if peak is None else rate * flops / peak,
        "seconds": {name: _spread(series) for name, series in seconds.items()},
        "of_floor": _ratio(seconds["floor"], seconds["ours"], shape.floor_share),
    }
    with torch.no_grad():  # the same function, still, after as many steps
        windows = ours.windows(slice(0, shape.batch_size))
        for label, other in others.items():
            difference = abs(float(ours.loss(windows, 1.0) - other.loss(windows, 1.0)))
            row.setdefault("loss_difference_nats", {})[label] = difference
            row.setdefault("over", {})[label] = _ratio(seconds[label], seconds["ours"], shape.over.get(label))
    return row


def _spread(series: list[float]) -> dict[str, float]:
    return {"median": statistics.median(series), "least": min(series), "most": max(series)}


def _ratio(other: list[float], ours: list[float], to_reach: float | None) -> dict[str, Any]:
    """other / ours, of the medians, with its 95% interval over rounds."""
    low, high = speedup_interval(Compared([other], [ours]))
    ends = None if low is None or high is None else [1 + low, 1 + high]
    value = statistics.median(other) / statistics.median(ours)
    reached = None if to_reach is None else value >= to_reach
    return {"ratio": value, "interval_95": ends, "to_reach": to_reach, "reached": reached}


def peak_memory(shape: str, architecture: str, kind: str) -> int:
    """Bytes that a fresh process takes for two steps: `kind` is ours, whole, or rival."""
    command = [sys.executable, "-m", "benchmarks.training", "--one", shape, architecture, kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def _one(shape: str, architecture: str, kind: str) -> int:
    rivals: dict[str, Callable[[Any], nn.Module] | None] = {"ours": None, "whole": WholeLogits}
    rival = rivals[kind] if kind in rivals else next(iter(RIVALS[architecture].values()))
    config = SHAPES[shape].config(architecture)
    with tempfile.TemporaryDirectory(prefix="training-") as scratch, kept_memory():
        _tokens(config, Path(scratch))
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _peak_bytes()
        made = stepper(config, Path(scratch), rival)
        for _ in range(2):
            made.take()
        return _peak_bytes() - before


def _peak_bytes() -> int:
    """Linux's peak of this program alone: getrusage's begins with what the parent held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def table(rows: list[dict[str, Any]]) -> str:
    """The result as it is printed."""
    head = f"{'shape':6}{'architecture':16}{'ms/step':>9}{'spread':>8}{'tok/s':>8}{'GFLOP/s':>9}{'MFU':>6}"
    head += f"{'of floor':>10}{'to reach':>9}   {'against':37}{'to reach':>9}{'MB':>7}{'MB, logits whole':>18}"
    lines = [head]
    for row in rows:
        ours = row["seconds"]["ours"]
        line = f"{row['shape']:6}{row['architecture']:16}{ours['median'] * 1e3:9.1f}"
        line += f"{(ours['most'] - ours['least']) / ours['median']:8.0%}{row['tokens_per_s']:8.0f}"
        line += f"{row['flops_per_s'] / 1e9:9.0f}{'-' if row['mfu'] is None else format(row['mfu'], '.0%'):>6}"
        line += f"{row['of_floor']['ratio']:10.3f}{row['of_floor']['to_reach']:9.2f}   "
        memory = row.get("peak_bytes", {})
        cells = [format(memory[kind] / 1e6, ".0f") if kind in memory else "" for kind in ("ours", "whole")]
        against = [
            (f"{one['ratio']:.3f} x {label}", "" if one["to_reach"] is None else format(one["to_reach"], ".2f"))
            for label, one in row.get("over", {}).items()
        ] or [("", "")]
        lines.append(f"{line}{against[0][0]:37}{against[0][1]:>9}{cells[0]:>7}{cells[1]:>18}".rstrip())
        lines += [f"{'':{len(line)}}{text:37}{wanted:>9}".rstrip() for text, wanted in against[1:]]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=ALL, help="architectures")
    parser.add_argument("--rounds", type=int, help="of each; default by shape")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--json", type=Path, default=Path("results/benchmarks/training.json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: at least 1")
    if options.threads or options.clock == "cpu":
        torch.set_num_threads(1 if options.clock == "cpu" else options.threads)
    if options.one:
        print(_one(*options.one))
        return 0
    clock = time.thread_time if options.clock == "cpu" else time.perf_counter
    loads, rows = [os.getloadavg()[0]], []
    with tempfile.TemporaryDirectory(prefix="training-") as scratch, kept_memory():
        for name in options.shape:
            shape = SHAPES[name]
            for architecture in options.only or shape.architectures:
                row = {"shape": name, "rounds": options.rounds or shape.rounds}
                row |= measure(shape, architecture, row["rounds"], clock, Path(scratch))
                rows.append(row)
                loads.append(os.getloadavg()[0])
                print(table([row]).partition("\n")[2], file=sys.stderr, flush=True)
                gc.collect()
    if not options.no_memory and sys.platform == "linux":
        for row in rows:
            kinds = ("ours", "whole", "rival") if row["architecture"] in RIVALS else ("ours",)
            row["peak_bytes"] = {kind: peak_memory(row["shape"], row["architecture"], kind) for kind in kinds}
    print(table(rows))
    print(f"load average before the run {loads[0]:.2f}, during it {min(loads[1:]):.2f} to {max(loads[1:]):.2f}")
    if options.clock == "wall" and loads[0] > IDLE:
        print("others were computing when this began: take the ratios with care, and the rates not at all")
    body = {
        "provenance": provenance.describe(provenance.fingerprint("benchmarks.training", vars(options))),
        "kind": "measured",
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "load_average": {"before": loads[0], "after_each_row": loads[1:]},
        "rows": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(options.json, body)
    print(options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
