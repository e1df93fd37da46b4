"""How much memory ranks will take, before they start; how much one took, while it runs."""

import contextlib
import ctypes
import gc
from pathlib import Path

import psutil
import torch

from pipeline.benchmark.grid import Cell, Models, cells, decode_cells, most_tokens, serving_cells
from pipeline.benchmark.ranks.spec import variants
from pipeline.config import ModelConfig
from pipeline.config.benchmark import BenchmarkConfig, unwired
from pipeline.errors import MissingRequirementError
from pipeline.models import Placement, count, local_shape

PROCESS_BYTES = 350e6  # a rank before its first weight: interpreter, torch, threads
SPARE = 0.95  # share of free memory that may be planned


def activation_bytes(model: ModelConfig, cell: Cell, placement: Placement, dtype: str) -> int:
    """What one layer keeps alive at its widest, plus the streams and buffers around it (an estimate)."""
    shape = local_shape(model, placement)
    heads = shape.n_head * shape.head_dim
    widest = shape.n_ways * (4 * heads + 2 * shape.ffn_dim + 6 * model.n_embd)
    return cell.batch_size * (cell.context * widest + model.vocab_size) * count.BYTES[dtype]


def cache_bytes(model: ModelConfig, cell: Cell, new_tokens: int, placement: Placement, dtype: str) -> int:
    shape = local_shape(model, placement)
    per_token = 2 * model.n_layer * shape.n_ways * shape.n_head * shape.head_dim
    return cell.batch_size * (cell.context + new_tokens + 1) * per_token * count.BYTES[dtype]


def rank_bytes(benchmark: BenchmarkConfig, models: Models, device: str, shared: bool) -> int:
    """One rank's memory while it holds every architecture of `models`; `shared`: all in one arena of weights."""
    placement, dtype, new_tokens = Placement(0, models.tp_size), benchmark.dtype, benchmark.decode_tokens
    decodes = decode_cells(benchmark)
    prompts = [*cells(benchmark), *decodes]
    shapes = [model for label, model in models.by_architecture.items() if label == unwired(label)]
    weights = (max if shared else sum)(count.parameters(m, placement) * count.BYTES[dtype] for m in shapes)
    activations = max(activation_bytes(m, cell, placement, dtype) for m in shapes for cell in prompts)
    caches = max((sum(cache_bytes(m, c, new_tokens, placement, dtype) for m in shapes) for c in decodes), default=0)
    served = (Cell(cell.context, cell.concurrency) for cell in serving_cells(benchmark))  # one architecture at a time
    slots = max(
        (cache_bytes(m, c, most_tokens(benchmark), placement, dtype) for c in served for m in shapes), default=0
    )
    process = 0 if device == "cuda" else PROCESS_BYTES
    graphs = graph_bytes(benchmark, models, placement) if device == "cuda" and benchmark.cuda_graph else 0
    return int(weights + activations + graphs + max(caches, slots) + process)


def graph_bytes(benchmark: BenchmarkConfig, models: Models, placement: Placement) -> int:
    """CUDA graphs of one prompt, one a variant, that take turns: each keeps the memory of its forward to itself."""
    captured = [models.by_architecture[variant.architecture] for variant in variants(models.by_architecture)]
    return max(
        sum(activation_bytes(model, cell, placement, benchmark.dtype) for model in captured)
        for cell in cells(benchmark)
    )


def free_bytes(n_ranks: int, device: str) -> int:
    """What each of `n_ranks` ranks may take: its GPU's free memory, or its share of the machine's."""
    if device == "cuda":
        return int(SPARE * min(torch.cuda.mem_get_info(index)[0] for index in range(n_ranks)))
    return int(SPARE * psutil.virtual_memory().available) // n_ranks


def too_little(models: Models, needed_per_rank: int, free_per_rank: int) -> MissingRequirementError:
    return MissingRequirementError(
        f"benchmark.shapes size={models.size} at tp_size={models.tp_size} needs about {needed_per_rank / 1e9:.1f} GB "
        f"a rank, {free_per_rank / 1e9:.1f} GB are free for each: leave the size out, shorten benchmark.contexts, or "
        "use a machine with more memory"
    )


def return_memory(device: torch.device) -> None:
    """Let freed memory count as free again."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: ranks are told to keep it


def reset_peak(device: torch.device) -> int:
    """Forget the highest memory use so far; returns what is in use now, in bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return_memory(device)  # freed memory would hide what the next forward takes
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes(device, peak=False)


def resident_bytes(device: torch.device, peak: bool) -> int:
    """Memory of this process in bytes: on the GPU, or resident (Linux); the highest since reset_peak with `peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) if peak else torch.cuda.memory_allocated(device)
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return psutil.Process().memory_info().rss
