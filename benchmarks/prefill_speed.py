"""Is the model code itself fast? One process, float32, random weights; a benchmark to run by hand, not a timed test.

    python -m benchmarks.prefill_speed [--context 512] [--threads 1 2] [--launches 3] [--rounds 15] [--output FILE]

1. Our standard model's prefill against transformers' GPT-2 of the same shape (124M, biases).
2. Our prefill against its own matrix products and attention alone: what the rest of the model code adds.
3. Our attention against torch's kernel, and what either and the products reach.

All series alternate in one process. Every launch is a fresh one, launches of several numbers of threads take turns,
and intervals are over launches.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline import files
from pipeline.benchmark.idle import Watch
from pipeline.benchmark.protocol import rotated
from pipeline.config import ModelConfig
from pipeline.engines.torch import TorchEngine
from pipeline.models import build_model
from pipeline.models.attention import causal_attention
from pipeline.provenance import describe, fingerprint
from pipeline.results.statistics import Compared, median, speedup_interval

SHAPE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50304}
WARMUP = 3
ROOT = Path(__file__).resolve().parents[1]


def ours() -> TorchEngine:
    return TorchEngine(build_model(ModelConfig(name="gpt2", architecture="standard", bias=True, **SHAPE)))


def theirs() -> GPT2LMHeadModel:
    config = GPT2Config(n_positions=1024, attn_implementation="sdpa", **SHAPE)
    return GPT2LMHeadModel(config).eval()


def products(engine: TorchEngine, context: int) -> tuple[Callable[[], None], float]:
    """The forward's matrix products, with its own weights and shapes, and their FLOPs."""
    x, hidden = torch.randn(context, 768), torch.randn(context, 4 * 768)  # (T, d), (T, 4d)
    pairs: list[tuple[Tensor, Tensor]] = []
    blocks: list[Any] = list(engine.model.blocks)
    for block in blocks:
        rows = slice(-1, None) if block.is_last else slice(None)  # the last FFN is of one position
        read = ((x, block.attn.qkv), (x, block.attn.out), (x[rows], block.mlp.up), (hidden[rows], block.mlp.down))
        pairs += [(rows, linear.weight[0]) for rows, linear in read]
    pairs.append((x[-1:], engine.model.head_weight.t()))

    def run() -> None:
        for rows, weight in pairs:
            torch.mm(rows, weight)

    return run, sum(2.0 * len(rows) * weight.numel() for rows, weight in pairs)


def attentions(context: int, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """The forward's attention calls."""
    fused = torch.randn(1, context, 3, SHAPE["n_head"], 64)
    q, k, v = (part.transpose(1, 2) for part in fused.unbind(2))  # each (1, h, T, hd)

    def run() -> None:
        for _ in range(SHAPE["n_layer"]):
            attend(q, k, v)

    return run


def attention_flops(context: int) -> float:
    """Of the scores that a causal mask leaves, and what they weigh."""
    return 4.0 * SHAPE["n_layer"] * SHAPE["n_embd"] * context * (context + 1) / 2


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # each (B, h, T, hd)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def alternate(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every function, once a round, in rotated order."""
    samples: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + WARMUP):
        for name in rotated(list(work), turn):
            begun = time.perf_counter()
            work[name]()
            if turn >= WARMUP:
                samples[name].append((time.perf_counter() - begun) * 1e3)
    return samples


def launch(context: int, threads: int, rounds: int) -> dict[str, Any]:
    """One process's samples, and what others took of the machine meanwhile."""
    torch.set_num_threads(threads)
    tokens = torch.randint(0, 50257, (1, context), generator=torch.Generator().manual_seed(0))  # (1, T)
    model, rival = ours(), theirs()
    multiply, flops = products(model, context)
    watch = Watch()
    with torch.inference_mode():
        samples = alternate(
            {
                "ours": lambda: model.prefill(tokens),
                "transformers": lambda: rival(tokens, use_cache=False, logits_to_keep=1).logits.argmax(-1),
                "products": multiply,
                "attention": attentions(context, causal_attention),
                "sdpa": attentions(context, sdpa),
            },
            rounds,
        )
    usage = watch.usage()
    parts = zip(samples["products"], samples["attention"], strict=True)
    samples["parts_alone"] = [product + attention for product, attention in parts]
    return {"samples_ms": samples, "products_flops": flops, "others": usage.others, "steal": usage.steal}


def fresh(context: int, threads: int, rounds: int) -> dict[str, Any]:
    """`launch` in a process of its own."""
    numbers = [str(number) for number in (context, threads, rounds)]
    command = [sys.executable, "-m", "benchmarks.prefill_speed", "--one", *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(samples: dict[str, list[list[float]]], mine: str, other: str, less: int = 0) -> dict[str, Any]:
    """mine / other - less, with its 95% interval; null where launches or rounds are too few for one."""
    pair = Compared(samples[mine], samples[other])
    ends = speedup_interval(pair)
    value = median(samples[mine]) / median(samples[other]) - less
    shown = [None if end is None else round(1 + end - less, 4) for end in ends]
    return {"value": round(value, 4), "interval_95": shown, "interval_over": pair.over}


def row(context: int, threads: int, launches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all launches with as many threads found."""
    samples = {name: [one["samples_ms"][name] for one in launches] for name in launches[0]["samples_ms"]}
    ms = {name: median(series) for name, series in samples.items()}
    flops = {
        "products": launches[0]["products_flops"],
        **dict.fromkeys(("attention", "sdpa"), attention_flops(context)),
    }
    return {
        "context": context,
        "threads": threads,
        "ours_over_transformers": compared(samples, "ours", "transformers"),
        "attention_over_sdpa": compared(samples, "attention", "sdpa"),
        "added_by_model_code": compared(samples, "ours", "parts_alone", less=1),
        "median_ms": {name: round(value, 2) for name, value in ms.items()},
        "gflops_per_s": {name: round(count / ms[name] / 1e6, 1) for name, count in flops.items()},
        "others_cpu": max((one["others"] for one in launches if one["others"] is not None), default=None),
        "steal_cpu": max((one["steal"] for one in launches if one["steal"] is not None), default=None),
        "samples_ms": {
            name: [[round(value, 3) for value in one] for one in series] for name, series in samples.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--launches", type=int, default=3, help="fresh processes for each number of threads")
    parser.add_argument("--rounds", type=int, default=15, help="of each launch")
    parser.add_argument("--output", type=Path, help="write the result with its samples there")
    parser.add_argument("--one", type=int, nargs=3, metavar=("CONTEXT", "THREADS", "ROUNDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(launch(*options.one)))
        return
    found: dict[int, list[dict[str, Any]]] = {threads: [] for threads in options.threads}
    for turn in range(options.launches):
        for name in rotated([str(threads) for threads in found], turn):
            threads = int(name)
            found[threads].append(fresh(options.context, threads, options.rounds))
    rows = [row(options.context, threads, launches) for threads, launches in found.items()]
    if options.output:
        settings = {"context": options.context, "launches": options.launches, "rounds": options.rounds}
        provenance = describe(fingerprint(SHAPE, settings))
        files.write_json(options.output, {"model": SHAPE, **settings, "rows": rows, "provenance": provenance})
    shown = [{name: value for name, value in one.items() if name != "samples_ms"} for one in rows]
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
