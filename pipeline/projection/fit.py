"""The projection's own model fitted to times of this machine: the rates that it reaches and what its sums cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config.model import ModelConfig
from pipeline.errors import ResultError
from pipeline.models.trace import trace
from pipeline.projection.hardware import Hardware
from pipeline.projection.prefill import prefill

BOUNDS = {  # name of a field of Hardware: least, most
    "matmul_flops": (1e8, 1e16),
    "memory_bandwidth": (1e8, 1e14),
    "kernel_launch_s": (1e-7, 1e-2),
    "link_efficiency": (0.05, 1.5),
    "link_latency_s": (1e-7, 1e-1),
    "attention_efficiency": (0.02, 2.0),
    "link_cpu_s_per_byte": (1e-12, 1e-7),
}
UNITS = {
    "matmul_flops": "FLOP/s of a rank",
    "memory_bandwidth": "bytes/s of a rank",
    "kernel_launch_s": "s a kernel",
    "link_efficiency": "share of the link's measured rate",
    "link_latency_s": "s a sum",
    "attention_efficiency": "rate of attention over that of products",
    "link_cpu_s_per_byte": "s of a rank's cores a byte that enters a sum over a limited link",
}
OPTIONAL = {"attention_efficiency": 1.0, "link_cpu_s_per_byte": 0.0}  # what they are where they are not fitted
PRIOR_WEIGHT = 0.005  # keeps a value that the times cannot tell where the fit begins


@dataclass(frozen=True)
class Case:
    """One architecture in one cell on one link."""

    model: ModelConfig
    context: int
    batch_size: int
    tp_size: int
    link_bytes_per_s: float
    is_limited: bool = True  # False: the link is as fast as the cores that move its bytes
    communicates: bool = True  # False: its sums left out

    def milliseconds(self, hardware: Hardware, dtype: str) -> float:
        """Its time on `hardware`, whose link has this case's rate; over an unlimited one cores do nothing else."""
        device = replace(hardware, link_bandwidth=self.link_bytes_per_s)
        if hardware.link_cpu_s_per_byte and not self.is_limited:
            device = replace(device, link_cpu_s_per_byte=1 / (self.link_bytes_per_s * hardware.link_efficiency))
        size = (self.context, self.tp_size, self.batch_size, dtype)
        return prefill(self.model, device, *size, self.communicates, gather_logits=False).timeline.seconds * 1e3


def fit(cases: Sequence[Case], milliseconds: Sequence[float], dtype: str, without: Sequence[str] = ()) -> Hardware:
    """Least squares on log(projected / timed); `without` names OPTIONAL values that are left as they are elsewhere.

    Efficiencies of arithmetic and memory are 1: the rates are those reached. Deterministic. Raises ResultError with
    fewer times than values.
    """
    from scipy.optimize import least_squares

    if fault := too_few(len(cases), without):
        raise ResultError(fault)
    names = _names(without)
    begin = _begin(cases, milliseconds)
    start = np.log([getattr(begin, name) for name in names])
    timed = np.log(np.asarray(milliseconds))

    def tuned(logs: np.ndarray) -> Hardware:
        values = dict(zip(names, np.exp(logs).tolist(), strict=True))
        return replace(begin, **{**{name: OPTIONAL[name] for name in without}, **values})

    def errors(logs: np.ndarray) -> np.ndarray:
        device = tuned(logs)
        projected = np.log([case.milliseconds(device, dtype) for case in cases])
        return np.concatenate([projected - timed, PRIOR_WEIGHT * (logs - start)])

    bounds = tuple(np.log([BOUNDS[name][side] for name in names]) for side in (0, 1))
    options = {"diff_step": 1e-3, "ftol": 1e-6, "xtol": 1e-5}  # the roofline has corners
    return tuned(least_squares(errors, start, bounds=bounds, **options).x)


def too_few(rows: int, without: Sequence[str] = ()) -> str | None:
    """Why so many rows cannot be fitted; None where they can."""
    names = _names(without)
    if rows >= len(names):
        return None
    return f"{rows} rows to fit cannot tell {len(names)} values: time more contexts or links, with a core a rank"


def _names(without: Sequence[str]) -> list[str]:
    return [name for name in BOUNDS if name not in without]


def values(hardware: Hardware) -> dict[str, float]:
    """What a fit finds, by name."""
    return {name: getattr(hardware, name) for name in BOUNDS}


def _begin(cases: Sequence[Case], milliseconds: Sequence[float]) -> Hardware:
    """Where the fit begins: the highest rate at which a case did its arithmetic, and guesses in proportion."""
    rates = [
        trace(case.model, case.tp_size, case.batch_size, case.context).flops / (time * 1e-3)
        for case, time in zip(cases, milliseconds, strict=True)
    ]
    return Hardware(
        name="as timed",
        matmul_flops=max(rates),
        memory_bandwidth=max(rates) / 10,
        link_bandwidth=cases[0].link_bytes_per_s,
        link_topology="switched",
        matmul_efficiency=1.0,
        bandwidth_efficiency=1.0,
        kernel_launch_s=2e-5,
        link_efficiency=0.9,
        link_latency_s=2e-4,
        link_latency_per_rank_s=0.0,
        attention_efficiency=0.5,
        link_cpu_s_per_byte=1e-9,
    )
