"""One forward as a timeline of two lanes, compute and communication: typed events, and Chrome/Perfetto JSON."""

import json
from pathlib import Path
from typing import Any, get_args

from pipeline import files
from pipeline.benchmark.ttft import Measured
from pipeline.results.cell import Lane, Timeline, TimelineEvent

LANES: tuple[Lane, ...] = get_args(Lane)


def timeline(measured: Measured, architecture: str, rank: int = 0) -> Timeline:
    """What one rank did, in milliseconds from the start of its forward."""
    forward = measured.instrumented[rank][architecture]

    def event(lane: Lane, part: str, name: str, begin_ns: int, end_ns: int, **more: Any) -> TimelineEvent:
        begin_ms, end_ms = ((when - forward["begin_ns"]) / 1e6 for when in (begin_ns, end_ns))
        return TimelineEvent(lane=lane, part=part, name=name, begin_ms=begin_ms, end_ms=end_ms, **more)

    events = [event("compute", part, name, begin, end) for part, name, begin, end in forward["segments"]]
    events += [
        event("communication", "all_reduce", f"all-reduce {index}", begin, end, message_bytes=size)
        for index, (begin, end, size) in enumerate(forward["collectives"])
    ]
    return Timeline(
        kind="measured",
        architecture=architecture,
        size=measured.models.size,
        context=measured.cell.context,
        batch_size=measured.cell.batch_size,
        tp_size=measured.models.tp_size,
        link=measured.link,
        rank=rank,
        oversubscribed=measured.resources.oversubscribed,
        events=events,
    )


def chrome_trace(measured: Measured, architecture: str) -> dict[str, Any]:
    """All ranks of one forward; open it in chrome://tracing or ui.perfetto.dev. Microseconds, one process a rank."""
    events: list[dict[str, Any]] = []
    first_ns = measured.instrumented[0][architecture]["begin_ns"]
    for rank, forwards in enumerate(measured.instrumented):
        events.append({"ph": "M", "name": "process_name", "pid": rank, "args": {"name": f"rank {rank}"}})
        events += [
            {"ph": "M", "name": "thread_name", "pid": rank, "tid": lane, "args": {"name": name}}
            for lane, name in enumerate(LANES)
        ]
        shift_ns = forwards[architecture]["begin_ns"] - first_ns
        events += [
            {
                "ph": "X",
                "pid": rank,
                "tid": LANES.index(event.lane),
                "name": event.name,
                "cat": event.part,
                "ts": event.begin_ms * 1e3 + shift_ns / 1e3,
                "dur": (event.end_ms - event.begin_ms) * 1e3,
            }
            for event in timeline(measured, architecture, rank).events
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
