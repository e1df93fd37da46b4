"""A few efficiencies fitted to some of the published times; everything else is predicted.

Fitted rows: the standard and the parallel model of every second published size, in the order of the
table. Two architectures are needed: with the standard one alone, what a kernel costs at least and what
a collective costs at least cannot be told apart. The other sizes, and every Kraken row, are held out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.reference import PublishedTtft, ReferenceConfig
from pipeline.models.timed import ModelByName, timed_model
from pipeline.projection.hardware import FITTED, Hardware
from pipeline.projection.prefill import prefill

FITTED_ARCHITECTURES = ("standard", "parallel")
PRIOR_WEIGHT = 0.02  # keeps an efficiency that the rows cannot tell near the hardware file's value
BOUNDS = {
    "matmul_efficiency": (0.2, 1.0),
    "bandwidth_efficiency": (0.2, 1.0),
    "kernel_launch_s": (1e-7, 1e-4),
    "link_efficiency": (0.05, 1.0),
    "link_latency_s": (1e-7, 1e-3),
    "link_latency_per_rank_s": (1e-8, 1e-4),
}


@dataclass(frozen=True)
class Calibration:
    """The fitted values, and which published rows they come from."""

    values: dict[str, float]
    rows: frozenset[tuple[str, str, int, int]]  # (architecture, size, context, tp_size)
    mean_absolute_error: float  # relative, over the fitted rows


def published_ms(row: PublishedTtft, architecture: str) -> float:
    """The published time of one architecture; raises AttributeError for one that has none."""
    return float(getattr(row, f"{architecture}_ms"))


def fitted_sizes(published: Sequence[PublishedTtft]) -> set[str]:
    """Every second size of the table, the first included."""
    return set(list(dict.fromkeys(row.size for row in published))[0::2])


def calibrate(
    hardware: Hardware, reference: ReferenceConfig, benchmark: BenchmarkConfig, lookup: ModelByName
) -> Calibration | None:
    """Least squares on log(projected / published) of the fitted rows; None where there are too few.

    The hardware's own values are the start and a weak prior. Deterministic.
    """
    from scipy.optimize import least_squares

    by_size = {shape.size: shape for shape in benchmark.shapes}
    chosen = fitted_sizes(reference.ttft)
    targets = [
        (architecture, row, timed_model(benchmark, by_size[row.size], architecture, row.tp_size, lookup))
        for row in reference.ttft
        for architecture in FITTED_ARCHITECTURES
        if row.size in chosen and row.size in by_size and architecture in benchmark.architectures
    ]
    if len(targets) < 2 * len(FITTED):
        return None
    start = np.array([_inside(name, value) for name, value in hardware.fitted_values().items()])

    def errors(logs: np.ndarray) -> np.ndarray:
        tuned = hardware.with_values(dict(zip(FITTED, np.exp(logs).tolist(), strict=True)))
        return np.array(
            [
                math.log(prefill(model, tuned, row.context, row.tp_size, dtype=benchmark.dtype).timeline.seconds * 1e3)
                - math.log(published_ms(row, architecture))
                for architecture, row, model in targets
            ]
        )

    found = least_squares(
        lambda logs: np.concatenate([errors(logs), PRIOR_WEIGHT * (logs - np.log(start))]),
        np.log(start),
        bounds=tuple(np.log([BOUNDS[name][side] for name in FITTED]) for side in (0, 1)),
        diff_step=1e-3,  # the roofline has corners
    )
    return Calibration(
        dict(zip(FITTED, np.exp(found.x).tolist(), strict=True)),
        frozenset((architecture, row.size, row.context, row.tp_size) for architecture, row, _ in targets),
        float(np.mean(np.abs(np.expm1(errors(found.x))))),
    )


def _inside(name: str, value: float) -> float:
    """A value moved just inside its bounds, where least squares must start."""
    low, high = BOUNDS[name]
    return min(max(value, low * 1.001), high * 0.999)
