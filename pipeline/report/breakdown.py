"""Breakdowns and timelines in one form, whether a benchmark or a projection wrote them."""

from typing import Any

from pipeline.report.inputs import Body
from pipeline.report.table import Row

CELL = ("size", "context", "tp_size", "link")
Cell = tuple[Any, ...]
SAME = {"allreduce": "all_reduce"}  # one name for a part


def breakdowns(body: Body) -> dict[Cell, dict[str, dict[str, float]]]:
    """{(size, context, tp_size, link): {architecture: {part: ms}}} of batch 1.

    A benchmark writes a list of its own with a key per part; a projection a dictionary in each row.
    """
    found: dict[Cell, dict[str, dict[str, float]]] = {}
    apart = body.get("breakdown")
    for row in body.get("rows", []) if apart is None else apart:
        parts = row.get("breakdown_ms") if apart is None else _flat(row)
        if parts and row.get("batch_size", 1) == 1:
            cell = tuple(row.get(key) for key in CELL)
            found.setdefault(cell, {})[row["architecture"]] = {SAME.get(name, name): ms for name, ms in parts.items()}
    return found


def _flat(row: Row) -> dict[str, float]:
    """Parts that stand in the row itself, as gemm_ms."""
    return {
        key.removesuffix("_ms"): value
        for key, value in row.items()
        if key.endswith("_ms") and key != "total_ms" and isinstance(value, int | float)
    }


def timelines(body: Body) -> list[Body]:
    """Each: a cell's keys, `architecture` and `spans` with category, stream, start_ms and end_ms; of one cell.

    A benchmark keeps events per architecture of several cells, of which the first is drawn.
    """
    if body.get("timelines"):
        return list(body["timelines"])
    if not body.get("timeline"):
        return []
    first = body["timeline"][0]
    return [
        {**{key: first.get(key) for key in CELL}, "architecture": name, "spans": [_span(event) for event in events]}
        for name, events in first["architectures"].items()
    ]


def _span(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": event["name"],
        "category": SAME.get(event["kind"], event["kind"]),
        "stream": event["lane"],
        "start_ms": event["begin_ms"],
        "end_ms": event["begin_ms"] + event["duration_ms"],
    }
