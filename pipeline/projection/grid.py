"""A benchmark's grid projected for one device: rows, errors against published times, and the headline."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.config.benchmark import BenchmarkConfig, Shape
from pipeline.config.reference import ReferenceConfig
from pipeline.projection.calibration import Calibration, ModelLookup, published_ms, timed_model
from pipeline.projection.hardware import Hardware
from pipeline.projection.prefill import Prefill, prefill

BOUND = "no_communication"  # the standard model without its collectives: wrong output, right bound
PUBLISHED_ARCHITECTURES = ("standard", "parallel", "kraken")
LINK_FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)
DRAWN_LAYERS = 3

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One size, context, batch and number of ranks: all architectures are compared within it."""

    shape: Shape
    context: int
    tp_size: int
    batch_size: int


def project(
    benchmark: BenchmarkConfig,
    hardware: Hardware,
    lookup: ModelLookup,
    published: ReferenceConfig | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """The body of a projection's result file.

    `published` is given where the device is the one behind the published times. Raises ConfigError
    for a model that does not exist or that the ranks do not divide.
    """
    rows: list[Row] = []
    timelines: list[dict[str, Any]] = []
    cells = list(_cells(benchmark))
    drawn = _drawn(cells)
    for cell in cells:
        placed = _place(cell, hardware, lookup, benchmark.dtype)
        rows += [_row(name, run, placed, cell, published, calibration) for name, run in placed.items()]
        if cell == drawn:
            timelines = [_drawing(name, run, cell) for name, run in placed.items()]
    return {
        "kind": "projected",
        "benchmark": benchmark.name,
        "hardware": hardware.name,
        "dtype": benchmark.dtype,
        "method": "roofline per operator on two streams; collectives placed by their dependencies",
        "values": hardware.fitted_values(),
        "calibration": _calibration(calibration),
        "rows": rows,
        "headline": _headline(rows, published),
        "errors": _errors(rows),
        "timelines": timelines,
        "link_sweep": _link_sweep(cells, hardware, lookup, benchmark.dtype),
    }


def geomean_speedup(pairs: Sequence[tuple[float, float]]) -> float:
    """Geometric mean of t_standard / t over (t_standard, t), minus 1."""
    return math.exp(sum(math.log(standard / other) for standard, other in pairs) / len(pairs)) - 1


def _cells(benchmark: BenchmarkConfig) -> Iterator[Cell]:
    for shape in benchmark.shapes:
        for context in benchmark.contexts:
            for tp_size in benchmark.tp_sizes:
                for batch_size in benchmark.batch_sizes:
                    yield Cell(shape, context, tp_size, batch_size)


def _drawn(cells: list[Cell]) -> Cell:
    """The cell whose timelines are kept: the second size's longest context on most ranks."""
    sizes = list(dict.fromkeys(cell.shape.size for cell in cells))
    size = sizes[min(1, len(sizes) - 1)]
    chosen = [cell for cell in cells if cell.shape.size == size]
    return max(chosen, key=lambda cell: (cell.context, cell.tp_size, -cell.batch_size))


def _place(cell: Cell, hardware: Hardware, lookup: ModelLookup, dtype: str) -> dict[str, Prefill]:
    """Every architecture of the cell, and the bound, by name."""
    size = (cell.context, cell.tp_size, cell.batch_size, dtype)
    models = {name: timed_model(cell.shape, name, cell.tp_size, lookup) for name in cell.shape.models}
    placed = {name: prefill(model, hardware, *size) for name, model in models.items()}
    if "standard" in models:
        placed[BOUND] = prefill(models["standard"], hardware, *size, communicate=False)
    return placed


def _row(
    name: str,
    run: Prefill,
    placed: dict[str, Prefill],
    cell: Cell,
    published: ReferenceConfig | None,
    calibration: Calibration | None,
) -> Row:
    milliseconds = run.timeline.seconds * 1e3
    standard = placed["standard"].timeline.seconds * 1e3 if "standard" in placed else None
    bound = placed[BOUND].timeline.seconds * 1e3 if BOUND in placed else None
    hideable = standard - bound if standard is not None and bound is not None else None
    quoted = _published(name, cell, published)
    fitted = calibration is not None and published is not None and cell.batch_size == 1
    return {
        "kind": "projected",
        "architecture": name,
        "size": cell.shape.size,
        "context": cell.context,
        "tp_size": cell.tp_size,
        "batch_size": cell.batch_size,
        "projected_ms": milliseconds,
        "published_ms": quoted,
        "fitted": fitted
        and calibration is not None
        and (name, cell.shape.size, cell.context, cell.tp_size) in calibration.rows,
        "error_relative": None if quoted is None else milliseconds / quoted - 1,
        "speedup": None if standard is None else standard / milliseconds - 1,
        "published_speedup": _published_speedup(quoted, cell, published),
        "compute_ms": run.timeline.compute_seconds * 1e3,
        "communication_ms": run.timeline.communication_seconds * 1e3,
        "exposed_communication_ms": run.timeline.exposed_seconds * 1e3,
        "hideable_ms": hideable,
        "share_hidden": (standard - milliseconds) / hideable if standard is not None and hideable else None,
        "collectives": run.collectives,
        "collective_bytes": run.collective_bytes,
        "breakdown_ms": {part: seconds * 1e3 for part, seconds in run.timeline.breakdown().items()},
    }


def _published(name: str, cell: Cell, published: ReferenceConfig | None) -> float | None:
    """The paper's milliseconds for this row; None where it has none."""
    if published is None or name not in PUBLISHED_ARCHITECTURES or cell.batch_size != 1:
        return None
    key = (cell.shape.size, cell.context, cell.tp_size)
    for row in published.ttft:
        if (row.size, row.context, row.tp_size) == key:
            return published_ms(row, name)
    return None


def _published_speedup(quoted: float | None, cell: Cell, published: ReferenceConfig | None) -> float | None:
    standard = _published("standard", cell, published)
    return standard / quoted - 1 if quoted is not None and standard is not None else None


def _calibration(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {
        "fitted_values": calibration.values,
        "fitted_rows": [list(row) for row in sorted(calibration.rows)],
        "mean_absolute_error": calibration.mean_absolute_error,
    }


def _headline(rows: list[Row], published: ReferenceConfig | None) -> dict[str, Any] | None:
    """Kraken's geometric mean speedup over the grid, projected, beside the published one."""
    projected = [row["speedup"] for row in rows if row["architecture"] == "kraken" and row["speedup"] is not None]
    if not projected:
        return None
    quoted = [row["published_speedup"] for row in rows if row["architecture"] == "kraken"]
    complete = bool(quoted) and None not in quoted
    whole = published is not None and complete and len(quoted) == len(published.ttft)
    return {
        "kraken_geomean_speedup": geomean_speedup([(1 + value, 1.0) for value in projected]),
        "kraken_min_speedup": min(projected),
        "kraken_max_speedup": max(projected),
        "rows": len(projected),
        "published_geomean_speedup": published.ttft_headline_geomean if whole and published else None,
        "published_rows_geomean_speedup": geomean_speedup([(1 + value, 1.0) for value in quoted]) if complete else None,
    }


def _errors(rows: list[Row]) -> dict[str, Any]:
    """Relative errors against the published times, fitted and held-out rows apart."""
    groups = {
        "fitted": [row for row in rows if row["fitted"]],
        "held_out": [row for row in rows if row["published_ms"] is not None and not row["fitted"]],
    }
    for name in PUBLISHED_ARCHITECTURES:
        groups[f"held_out_{name}"] = [row for row in groups["held_out"] if row["architecture"] == name]
    return {name: _error_statistics([row["error_relative"] for row in group]) for name, group in groups.items()}


def _error_statistics(errors: list[float]) -> dict[str, float | int] | None:
    if not errors:
        return None
    return {
        "rows": len(errors),
        "mean_absolute_error": sum(abs(error) for error in errors) / len(errors),
        "bias": sum(errors) / len(errors),
        "worst": max(errors, key=abs),
    }


def _drawing(name: str, run: Prefill, cell: Cell) -> dict[str, Any]:
    """The first layers' spans, for a timeline like the paper's Figure 3."""
    spans = [span for span in run.timeline.spans if span.task.layer is not None and span.task.layer < DRAWN_LAYERS]
    return {
        "kind": "projected",
        "architecture": name,
        "size": cell.shape.size,
        "context": cell.context,
        "tp_size": cell.tp_size,
        "layers": DRAWN_LAYERS,
        "spans": [
            {
                "name": span.task.name,
                "category": span.task.category,
                "stream": span.task.stream,
                "layer": span.task.layer,
                "start_ms": span.start_s * 1e3,
                "end_ms": span.end_s * 1e3,
            }
            for span in spans
        ],
    }


def _link_sweep(cells: list[Cell], hardware: Hardware, lookup: ModelLookup, dtype: str) -> list[Row]:
    """Geometric mean speedup over the grid where the link were slower or faster, all else equal."""
    rows: list[Row] = []
    for factor in LINK_FACTORS:
        device = replace(hardware, link_bandwidth=hardware.link_bandwidth * factor)
        pairs: dict[str, list[tuple[float, float]]] = {}
        for cell in cells:
            placed = _place(cell, device, lookup, dtype)
            if "standard" not in placed:
                continue
            for name, run in placed.items():
                times = (placed["standard"].timeline.seconds, run.timeline.seconds)
                pairs.setdefault(name, []).append(times)
        rows += [
            {
                "kind": "projected",
                "architecture": name,
                "link_bandwidth_bytes_per_s": device.link_bandwidth,
                "geomean_speedup": geomean_speedup(times),
                "cells": len(times),
            }
            for name, times in pairs.items()
            if name != "standard"
        ]
    return rows
