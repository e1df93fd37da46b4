"""What a benchmark would run and what that takes: counted from the shapes, nothing is built or started."""

import os
from collections.abc import Mapping

from pipeline.benchmark.grid import Cell, Models, cells, decode_cells, most_tokens, serving_cells
from pipeline.benchmark.launches import DECODE_ROUNDS
from pipeline.benchmark.ranks.links import delayed_by
from pipeline.benchmark.ranks.memory import rank_bytes
from pipeline.benchmark.ranks.serving import drawn_tokens, schedule
from pipeline.benchmark.ranks.spec import variants
from pipeline.benchmark.ttft import SEED
from pipeline.benchmark.wire_errors import RANDOM_WINDOWS, WINDOWS, window_length
from pipeline.config.benchmark import BenchmarkConfig, unwired
from pipeline.config.link import LinkConfig
from pipeline.models import Placement, count, local_shape
from pipeline.models.trace import trace

DELAYS = {"nothing": "", "netem": " (delayed by the kernel's netem)", "model": " (delayed by a model)"}


def dry_run(
    benchmark: BenchmarkConfig,
    link: LinkConfig,
    device: str,
    grid: Mapping[int, list[Models]],
    compared: Models | None = None,
) -> str:
    """The plan as text: devices, memory per rank, and each architecture's shape, FLOPs, collectives and bytes.

    `compared` are the models that wires are compared on.
    """
    is_modelled = benchmark.protocol == "one_rank"
    over_links = link.links if benchmark.protocol == "ranks" and benchmark.engine == "torch" else None
    ranks = 1 if is_modelled else max(grid)
    groups = [models for sizes in grid.values() for models in sizes]
    each = [cells(benchmark, link) for link in over_links] if over_links is not None else [cells(benchmark)]
    prompts = sum(map(len, each))
    rows = prompts * sum(_rows(benchmark, models) for models in groups)
    seconds = prompts * len(groups) * benchmark.time_limit_s
    launches = 1 if over_links is None else benchmark.launches
    delayed = [one + DELAYS[delayed_by(one)] for one in over_links or []]
    named = "the modelled one" if is_modelled else "the GPUs' own" if over_links is None else ", ".join(delayed)
    lines = [
        f"{benchmark.name}: {rows} rows in {benchmark.dtype}, {benchmark.repeats_min} to {benchmark.repeats_max} "
        f"rounds in {'one launch' if launches == 1 else f'each of {launches} launches'}, at most about "
        f"{_span(seconds)} of timing, longer where {benchmark.repeats_min} rounds do not fit (counted; nothing was "
        "run)",
        f"needs {ranks} {_devices(device, ranks)}; links: {named}; {_here(device)}",
    ]
    if over_links is not None:
        lines += [_decoding(benchmark, cell) for cell in decode_cells(benchmark)]
    lines += [_serving(benchmark, cell) for cell in serving_cells(benchmark)]
    lines += [_comparing(benchmark, compared)] if compared else []
    for tp_size, sizes in grid.items():
        for models in sizes:
            lines += ["", *_size(benchmark, models, tp_size, device)]
    return "\n".join(lines)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.0f} minutes"


def _decoding(benchmark: BenchmarkConfig, cell: Cell) -> str:
    return (
        f"decodes {benchmark.decode_tokens} tokens behind T={cell.context} B={cell.batch_size}: {DECODE_ROUNDS} rounds "
        "and one to warm up for each architecture, link and launch, besides the timing above"
    )


def _comparing(benchmark: BenchmarkConfig, models: Models) -> str:
    return (
        f"compares {', '.join(benchmark.wires[1:])} sums with {benchmark.wires[0]} ones on {models.size} over "
        f"{models.tp_size} ranks: {WINDOWS} windows of {window_length(models)} validation tokens where a model is "
        f"trained, else {RANDOM_WINDOWS} random ones, for each architecture, besides the timing above"
    )


def _serving(benchmark: BenchmarkConfig, cell: Cell) -> str:
    """What clients ask for, counted: the order of steps depends on no clock."""
    requests = cell.concurrency * benchmark.requests_per_client
    steps = schedule(drawn_tokens(requests, benchmark.decode_tokens, SEED), cell.concurrency)
    return (
        f"serves {cell.concurrency} at a time, T={cell.context}: {requests} requests of 1 to {most_tokens(benchmark)} "
        f"tokens behind the first, {requests} prompts and {len(steps) - requests} decode steps for each architecture, "
        "link and launch, besides the timing above"
    )


def _rows(benchmark: BenchmarkConfig, models: Models) -> int:
    """TTFT rows of one prompt over one link: one rank's have their compute alone as rows of its own."""
    architectures = len(models.by_architecture)
    alone = architectures if benchmark.protocol == "one_rank" else 0
    return architectures + alone + (benchmark.no_communication_bound and benchmark.engine == "torch")


def _forwards(benchmark: BenchmarkConfig, models: Models) -> int:
    """Variants that a round times."""
    if benchmark.engine != "torch":
        return len(models.by_architecture)
    if benchmark.protocol == "one_rank":
        return 2 * len(models.by_architecture)
    return sum(not one.is_diagnostic or benchmark.diagnostics_every > 0 for one in variants(models.by_architecture))


def _devices(device: str, ranks: int) -> str:
    if device == "cuda":
        return "CUDA GPU" if ranks == 1 else "CUDA GPUs on one node"
    return "core" if ranks == 1 else "cores (fewer will do, and the rows say so)"


def _here(device: str) -> str:
    if device == "cuda":
        import torch

        return f"{torch.cuda.device_count()} here"
    return f"{os.cpu_count()} cores here"


def _size(benchmark: BenchmarkConfig, models: Models, tp_size: int, device: str) -> list[str]:
    def memory(shared: bool) -> float:
        return rank_bytes(benchmark, models, device, shared) / 1e9

    lines = [
        f"{models.size}, TP {tp_size}, {models.n_layer} layers: {memory(False):.1f} GB a rank with all architectures "
        f"side by side, {memory(True):.1f} GB where they share the memory of their random weights; "
        f"{_forwards(benchmark, models)} forwards a round"
    ]
    for name, model in models.by_architecture.items():
        if name != unwired(name):  # the same model; only its sums are rounded
            continue
        placement = Placement(0, tp_size)
        shape = local_shape(model, placement)
        weights = count.parameters(model, placement) * count.BYTES[benchmark.dtype]
        lines.append(
            f"  {name:14} d {model.n_embd:>5}  heads a rank {shape.n_ways * shape.n_head:>3} × {shape.head_dim:<3}  "
            f"weights {weights / 1e9:6.2f} GB a rank"
        )
        lines += [f"            {_prompt(benchmark, models, name, cell)}" for cell in cells(benchmark)]
    return lines


def _prompt(benchmark: BenchmarkConfig, models: Models, name: str, cell: Cell) -> str:
    model = models.by_architecture[name]
    flops = count.prefill_flops(model, cell.batch_size, cell.context, Placement(0, models.tp_size))
    moved = count.prefill_collective_bytes(model, cell.batch_size, cell.context, benchmark.dtype)
    traced = trace(model, models.tp_size, cell.batch_size, cell.context)  # of this prompt: one token is never split
    return (
        f"T={cell.context} B={cell.batch_size}: {flops / 1e12:.3f} TFLOP a rank, {moved / 1e6:.2f} MB into "
        f"{len(traced.starts)} all-reduces, {len(traced.blocking)} blocking"
    )
