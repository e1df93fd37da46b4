"""Result files written by hand, in the form that the stages write, for tests of the report."""

import math
from pathlib import Path
from typing import Any

from pipeline import files

MODELS = {"demo_standard": "standard", "demo_parallel": "parallel", "demo_kraken_4way": "kraken"}
LOSSES = {"demo_standard": 4.10, "demo_parallel": 4.14, "demo_kraken_4way": 4.05}
TTFT_MS = {"standard": 20.0, "parallel": 17.0, "kraken": 14.0, "no_communication": 12.0}


def training(model: str) -> dict[str, Any]:
    curve = [
        {"step": step, "loss_nats": 4 + 4 * math.exp(-step / 40), "learning_rate": 1e-3, "gradient_norm": 1.0}
        for step in range(0, 200, 10)
    ]
    return {
        "kind": "measured",
        "model": model,
        "architecture": MODELS[model],
        "parameters": 1_345_000,
        "steps": 200,
        "tokens": 409_600,
        "train_loss_nats": 4.0,
        "val_loss_nats": LOSSES[model],
        "unigram_loss_nats": 6.5,
        "stepping_s": 61.0,
        "tokens_per_s_median": 6700.0,
        "mfu": None,
        "peak_memory_bytes": 400_000_000,
        "workers": 1,
        "device_kind": "cpu",
        "curve": curve,
        "validation": [{"step": 100, "loss_nats": 4.5}, {"step": 200, "loss_nats": LOSSES[model]}],
    }


def perplexity(model: str) -> dict[str, Any]:
    loss = LOSSES[model]
    return {
        "model": model,
        "architecture": MODELS[model],
        "loss_nats": loss,
        "perplexity": math.exp(loss),
        "standard_error_nats": 0.02,
        "tokens": 20000,
    }


def superglue(model: str, data: str = "shipped") -> dict[str, Any]:
    task = {"score": 50.0, "standard_error": 8.0, "chance": 50.0, "majority": 62.0, "data": data, "notes": []}
    gap = {"difference": 1.0, "standard_error": 5.0, "low": -9.0, "high": 11.0, "p_value": 0.8, "is_noise": True}
    body = {
        "model": model,
        "unit": "percent",
        "data": data,
        "data_meaning": "the small set shipped with this project: not comparable with published values",
        "tasks": {"boolq": dict(task), "cb": {**task, "score": 40.0, "standard_error": None}},
        "mean": 45.0,
        "mean_standard_error": 1.3,
        "mean_chance": 50.0,
        "mean_majority": 62.0,
        "published_note": "Published values for these tasks are three-shot (Table 3 of the paper).",
    }
    if model != "demo_standard":
        body["baseline"] = {
            "model": "demo_standard",
            "differences": {"boolq": gap, "mean": gap},
            "sentence": f"No difference between {model} and demo_standard can be told from noise.",
        }
    return body


def ttft_row(architecture: str, context: int = 128, tp_size: int = 4, link: str = "loopback") -> dict[str, Any]:
    milliseconds = TTFT_MS[architecture] * context / 128
    return {
        "kind": "measured",
        "architecture": architecture,
        "size": "demo",
        "context": context,
        "tp_size": tp_size,
        "batch_size": 1,
        "engine": "torch",
        "mode": "eager",
        "link": link,
        "ttft_ms_median": milliseconds,
        "ttft_ms_low": milliseconds * 0.97,
        "ttft_ms_high": milliseconds * 1.04,
        "ttft_ms_p95": milliseconds * 1.2,
        "speedup": TTFT_MS["standard"] / TTFT_MS[architecture] - 1,
        "compute_ms": 12.0,
        "exposed_communication_ms": milliseconds - 12.0,
        "hideable_ms": 8.0,
        "share_hidden": 0.75,
        "collectives": 8,
        "bytes": 65536,
        "repeats": 20,
        "oversubscribed": tp_size > 2,
    }


def ttft() -> dict[str, Any]:
    rows = [
        ttft_row(architecture, context, tp_size, link)
        for link in ("loopback", "300mbit", "1gbit")
        for tp_size in (2, 4)
        for context in (128, 256)
        for architecture in TTFT_MS
    ]
    cell = {"size": "demo", "context": 256, "batch_size": 1, "tp_size": 2, "link": "loopback"}
    events = [
        {"lane": "compute", "kind": "gemm", "name": "qkv", "begin_ms": 0.0, "duration_ms": 2.0},
        {"lane": "communication", "kind": "allreduce", "name": "all-reduce 0", "begin_ms": 0.5, "duration_ms": 2.5},
    ]
    parts = {"norm_ms": 1.0, "gemm_ms": 6.0, "overlapped_gemm_ms": 1.0, "attention_ms": 2.0, "allreduce_ms": 3.0}
    return {
        "kind": "measured",
        "benchmark": "ttft_demo",
        "verified": "ranks over gloo on CPU",
        "rows": rows,
        "decode_rows": [],
        "breakdown": [{**cell, "architecture": name, **parts, "total_ms": 13.0} for name in ("standard", "kraken")],
        "timeline": [{**cell, "architectures": {"standard": events, "kraken": events}}],
    }


def engine(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "engine": "tensorrt",
        "ranks": 4,
        "collectives": 4,
        "module": "tensorrt_rtx",
        "version": "1.7.1.116",
        "target": "sm80",
        "mode": "whole",
        "dtype": "float16",
        "status": "built here, not run: no GPU",
        "size_bytes": 5_000_000,
        "build_s": 3.2,
        "key": "0123456789ab",
        "spec": {"model": {"name": model, "n_layer": 4, "n_ways": 1, "n_embd": 128, "n_head": 4, "block_size": 256}},
    }


def write_all(root: Path, scale: str = "demo") -> None:
    """A whole run's results under root/results and root/engines."""
    results = root / "results" / scale
    for model in MODELS:
        files.write_json(results / model / "training.json", training(model))
        files.write_json(results / model / "perplexity.json", perplexity(model))
        files.write_json(results / model / "superglue_3shot.json", superglue(model))
        files.write_json(root / "engines" / f"{model}-tp4-tensorrt" / "engine.json", engine(model))
    files.write_json(results / "ttft-ttft_demo.json", ttft())
