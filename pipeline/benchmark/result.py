"""The body of a result file, with its traces and figures written beside it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark import figures
from pipeline.benchmark.rows import breakdown_rows, decode_rows, ttft_rows
from pipeline.benchmark.trace import timeline, write_traces
from pipeline.benchmark.ttft import Decoded, Measured, rules_of
from pipeline.config.benchmark import BenchmarkConfig

VERIFIED = {
    "cpu": "ranks on CPU (gloo or socket): tensor-parallel logits are tested against one process to 1e-5",
    "cuda": "ranks over NCCL on GPUs: this path is written but was not run when the project was made",
}
VERIFIED_ONE_RANK = {
    "cpu": "one process on CPU; the modelled link takes no core",
    "cuda": "one GPU: this path is written but was not run when the project was made",
}


def make_body(
    measured: Sequence[Measured], decoded: Sequence[Decoded], benchmark: BenchmarkConfig, folder: Path, name: str
) -> dict[str, Any]:
    """Rows, breakdown, timelines and the paths of what was written under `folder` (results/<scale>)."""
    rows = [row for one in measured for row in ttft_rows(one, benchmark)]
    shown = _shown(measured)
    traces: list[Path] = []
    timelines: list[dict[str, Any]] = []
    drawn: list[Path] = figures.speedup_by_link(rows, folder / "figures", f"{name}-speedup-by-link")
    if benchmark.trace:
        for one in shown:
            traces += write_traces(folder / "traces" / name, one)
            events = {architecture: timeline(one, architecture) for architecture in one.models.by_architecture}
            timelines.append(_described(one) | {"rank": 0, "architectures": events})
        if shown:
            first = shown[0]
            drawn += figures.timelines(
                timelines[0]["architectures"], folder / "figures", f"{name}-timeline", _title(first)
            )
    return {
        "benchmark": benchmark.name,
        "kind": "measured",
        "verified": VERIFIED[measured[0].resources.device],
        "protocol": protocol(benchmark),
        "rows": rows,
        "headline": headline(rows),
        "decode_rows": [row for one in decoded for row in decode_rows(one, benchmark)],
        "breakdown": [row for one in measured if one.instrumented for row in breakdown_rows(one, benchmark)],
        "timeline": timelines,
        "traces": [str(path) for path in traces],
        "figures": [str(path) for path in drawn],
    }


def one_rank_body(
    rows: Sequence[dict[str, Any]], benchmark: BenchmarkConfig, hardware: dict[str, Any]
) -> dict[str, Any]:
    """Rows of one rank's share, with the link model whose durations stand in for the collectives."""
    return {
        "benchmark": benchmark.name,
        "kind": "measured compute, modelled communication",
        "verified": VERIFIED_ONE_RANK[rows[0]["device"]],
        "protocol": protocol(benchmark) | {"time": "one rank's prefill to the sampled first token; no other rank runs"},
        "link_model": hardware,
        "rows": list(rows),
        "headline": headline([row for row in rows if row["kind"] != "measured"]),
        "decode_rows": [],
        "breakdown": [],
        "timeline": [],
        "traces": [],
        "figures": [],
    }


def headline(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of each architecture's speedup over the rows whose ranks had cores of their own.

    `exposed_band` keeps the rows where the standard model spends 25 to 40% of its time in exposed communication.
    """
    fair = [row for row in rows if not row["oversubscribed"]]
    exposed = {
        _key(row): row["exposed_communication_ms"] / row["ttft_ms_median"]
        for row in fair
        if row["architecture"] == "standard" and row["exposed_communication_ms"] is not None
    }
    band = [row for row in fair if 0.25 <= exposed.get(_key(row), 0.0) <= 0.40]
    return {"all": _by_architecture(fair), "exposed_band": _by_architecture(band)}


def _by_architecture(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in dict.fromkeys(row["architecture"] for row in rows):
        own = [row for row in rows if row["architecture"] == name]
        shares = [row["share_hidden"] for row in own if row["share_hidden"] is not None]
        found[name] = {
            "geomean_speedup": float(np.exp(np.mean(np.log1p([row["speedup"] for row in own]))) - 1),
            "least_speedup": min(row["speedup"] for row in own),
            "most_speedup": max(row["speedup"] for row in own),
            "median_share_hidden": float(np.median(shares)) if shares else None,
            "least_share_hidden": min(shares) if shares else None,
            "rows": len(own),
        }
    return found


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["size"], row["context"], row["batch_size"], row["tp_size"], row["link"]


def _shown(measured: Sequence[Measured]) -> list[Measured]:
    """The cells that are traced: the longest prompt of each size, number of ranks and link."""
    best: dict[tuple[str, int, str], Measured] = {}
    for one in measured:
        key = (one.models.size, one.models.tp_size, one.link)
        if one.instrumented and (key not in best or one.cell.context > best[key].cell.context):
            best[key] = one
    return list(best.values())


def _described(measured: Measured) -> dict[str, Any]:
    return {
        "size": measured.models.size,
        "context": measured.cell.context,
        "batch_size": measured.cell.batch_size,
        "tp_size": measured.models.tp_size,
        "link": measured.link,
        "oversubscribed": measured.resources.oversubscribed,
    }


def _title(measured: Measured) -> str:
    cell = measured.cell
    return (
        f"{measured.models.size}, T={cell.context}, B={cell.batch_size}, TP {measured.models.tp_size}, "
        f"{measured.link}, rank 0"
    )


def protocol(benchmark: BenchmarkConfig) -> dict[str, Any]:
    """How the rows were measured, in numbers and words."""
    return asdict(rules_of(benchmark)) | {
        "time": "prefill of B×T tokens to the sampled first token; ranks released by a barrier; maximum over ranks",
        "order": "every variant once a round, rotated",
        "interval": "bootstrap of the median over rounds, 95%",
    }
