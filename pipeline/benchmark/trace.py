"""One forward as a timeline of two lanes, compute and communication: Chrome/Perfetto JSON and plain events."""

import json
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.benchmark.ttft import Measured

LANES = ("compute", "communication")


def timeline(measured: Measured, architecture: str, rank: int = 0) -> list[dict[str, Any]]:
    """Events of one rank: lane, kind, name, begin_ms and duration_ms from the start of the forward."""
    forward = measured.instrumented[rank][architecture]
    origin = forward["begin_ns"]
    events = [
        {
            "lane": "compute",
            "kind": kind,
            "name": name,
            "begin_ms": (begin - origin) / 1e6,
            "duration_ms": (end - begin) / 1e6,
        }
        for kind, name, begin, end in forward["segments"]
    ]
    events += [
        {
            "lane": "communication",
            "kind": "allreduce",
            "name": f"all-reduce {index}",
            "begin_ms": (begin - origin) / 1e6,
            "duration_ms": (end - begin) / 1e6,
            "bytes": size,
        }
        for index, (begin, end, size) in enumerate(forward["collectives"])
    ]
    return events


def chrome_trace(measured: Measured, architecture: str) -> dict[str, Any]:
    """All ranks of one forward; open it in chrome://tracing or ui.perfetto.dev. Microseconds, one process a rank."""
    events: list[dict[str, Any]] = []
    for rank in range(len(measured.instrumented)):
        events.append({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}})
        events += [
            {"ph": "M", "name": "thread_name", "pid": rank, "tid": lane, "args": {"name": name}}
            for lane, name in enumerate(LANES)
        ]
        shift = (
            measured.instrumented[rank][architecture]["begin_ns"] - measured.instrumented[0][architecture]["begin_ns"]
        )
        events += [
            {
                "ph": "X",
                "pid": rank,
                "tid": LANES.index(event["lane"]),
                "name": event["name"],
                "cat": event["kind"],
                "ts": event["begin_ms"] * 1e3 + shift / 1e3,
                "dur": event["duration_ms"] * 1e3,
            }
            for event in timeline(measured, architecture, rank)
        ]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_traces(folder: Path, measured: Measured) -> list[Path]:
    """One file an architecture; returns their paths."""
    cell = measured.cell
    stem = f"{measured.models.size}-t{cell.context}-b{cell.batch_size}-tp{measured.models.tp_size}-{measured.link}"
    written = []
    for architecture in measured.models.by_architecture:
        path = folder / f"{stem}-{architecture}.json"
        files.write_text(path, json.dumps(chrome_trace(measured, architecture)))
        written.append(path)
    return written
