"""Is the model code itself fast? One process, float32, random weights; a benchmark to run by hand, not a timed test.

    python benchmarks/prefill_speed.py [--context 512] [--rounds 15] [--threads 0]

1. Our standard model's prefill against transformers' GPT-2 of the same shape (124M, biases), alternating in one run.
2. Our prefill against its own matrix products and attention calls alone: what the rest of the model code adds.
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.benchmark.protocol import rotated
from pipeline.config import ModelConfig
from pipeline.engines.torch import TorchEngine
from pipeline.models import build_model
from pipeline.results.statistics import Compared, median, speedup_interval

SHAPE = {"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50304}
WARMUP = 3


def ours(bias: bool) -> TorchEngine:
    return TorchEngine(build_model(ModelConfig(name="gpt2", architecture="standard", bias=bias, **SHAPE)))


def theirs() -> GPT2LMHeadModel:
    config = GPT2Config(n_positions=1024, attn_implementation="sdpa", **SHAPE)
    return GPT2LMHeadModel(config).eval()


def parts_alone(engine: TorchEngine, context: int) -> Callable[[], None]:
    """The forward's matrix products and attention calls, with its own weights and shapes, and nothing between them."""
    config, model = engine.model.config, engine.model
    d, heads, width = config.n_embd, config.n_head, config.n_embd // config.n_head
    x, hidden = torch.randn(context, d), torch.randn(context, 4 * d)  # (T, d), (T, 4d)

    def product(linear: torch.nn.Module, rows: Tensor) -> Tensor:
        if linear.bias is None:
            return torch.mm(rows, linear.weight[0])
        return torch.addmm(linear.bias[0], rows, linear.weight[0])

    def run() -> None:
        for block in model.blocks:
            fused = product(block.attn.qkv, x)
            q, k, v = fused.view(1, context, 3, heads, width).permute(2, 0, 3, 1, 4)  # each (1, h, T, hd)
            F.scaled_dot_product_attention(q, k, v, is_causal=True)
            product(block.attn.out, x)
            product(block.mlp.up, x)
            product(block.mlp.down, hidden)
        F.linear(x[-1:], model.head_weight)

    return run


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


def compared(samples: dict[str, list[float]], name: str, ours: str, other: str, less: int) -> dict[str, object]:
    """ours / other - less: of the medians, with its 95% interval over rounds, drift in common left out."""
    numerator, denominator = [samples[ours]], [samples[other]]
    ratio = median(numerator) / median(denominator)
    ends = speedup_interval(Compared(numerator, denominator))
    shown = [None if end is None else round(1 + end - less, 4) for end in ends]  # None: too few rounds
    return {name: round(ratio - less, 4), f"{name}_95": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    tokens = torch.randint(0, 50257, (1, options.context), generator=torch.Generator().manual_seed(0))  # (1, T)
    with_bias, plain, huggingface = ours(bias=True), ours(bias=False), theirs()
    with torch.inference_mode():
        samples = alternate(
            {
                "ours": lambda: with_bias.prefill(tokens),
                "transformers": lambda: huggingface(tokens, use_cache=False, logits_to_keep=1).logits.argmax(-1),
                "parts_alone": parts_alone(with_bias, options.context),
                "ours_without_bias": lambda: plain.prefill(tokens),
                "parts_alone_without_bias": parts_alone(plain, options.context),
            },
            options.rounds,
        )
    medians = {name: median([series]) for name, series in samples.items()}
    print(
        json.dumps(
            {
                "context": options.context,
                "threads": torch.get_num_threads(),
                "rounds": options.rounds,
                "median_ms": {name: round(value, 2) for name, value in medians.items()},
                **compared(samples, "ours_over_transformers", "ours", "transformers", less=0),
                **compared(samples, "added_by_model_code", "ours", "parts_alone", less=1),
                **compared(
                    samples, "added_by_model_code_without_bias", "ours_without_bias", "parts_alone_without_bias", less=1
                ),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
