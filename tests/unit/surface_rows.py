"""Rows of a surface's benchmark as the projection's own model would time them, with noise a launch and a round."""

import numpy as np

from pipeline.benchmark.grid import cells
from pipeline.benchmark.result import make_result
from pipeline.compose import compose, model_config
from pipeline.config import Config
from pipeline.config.link import bits_per_second
from pipeline.models.timed import timed_model
from pipeline.projection.fit import Case
from pipeline.projection.hardware import Hardware
from pipeline.projection.surface import surface
from pipeline.results import SurfaceResult
from pipeline.results.cell import BASELINE, BOUND
from pipeline.results.statistics import summarise
from pipeline.results.ttft import TtftResult, TtftRow

LOOPBACK_BITS_PER_S = 2e10
DEVICE = Hardware(
    name="as made",
    matmul_flops=7.3e10,
    memory_bandwidth=9e9,
    link_bandwidth=1.0,  # every cell has its own
    link_topology="switched",
    matmul_efficiency=1.0,
    bandwidth_efficiency=1.0,
    kernel_launch_s=4e-5,
    link_efficiency=0.93,
    link_latency_s=6e-4,
    link_latency_per_rank_s=0.0,
    attention_efficiency=0.31,
    link_cpu_s_per_byte=2.4e-9,
)


MODELS = "{standard: cpu_standard_2048, kraken: 'cpu_kraken_2048_{tp_size}way'}"


def settings(*overrides: str) -> Config:
    """The shipped benchmark, of fewer layers."""
    shapes = f"benchmark.shapes=[{{size: 124M, n_layer: 3, models: {MODELS}}}]"
    return compose(["benchmark=ttft_surface", "link=surface", "tracking=none", shapes, *overrides])


def synthetic(config: Config, device: Hardware = DEVICE, noise: float = 0.0, scale: str = "demo") -> TtftResult:
    """The benchmark's rows on `device`; `noise`: relative deviation of a launch and of a round within it."""
    benchmark, generator, rows = config.benchmark, np.random.default_rng(0), []
    shape, tp_size = benchmark.shapes[0], benchmark.tp_sizes[0]
    models = {name: timed_model(benchmark, shape, name, tp_size, model_config) for name in benchmark.architectures}
    luck = np.exp(noise * generator.standard_normal(benchmark.launches))
    for link in config.link.links:
        rate = bits_per_second(link) or LOOPBACK_BITS_PER_S
        for context in (cell.context for cell in cells(benchmark, link)):
            samples = {}
            for name in (*models, BOUND):
                model = models[BASELINE if name == BOUND else name]
                case = Case(model, context, 1, tp_size, rate / 8, link != "loopback", name != BOUND)
                rounds = np.exp(noise * generator.standard_normal((benchmark.launches, 4)))
                samples[name] = (luck[:, None] * rounds * case.milliseconds(device, benchmark.dtype)).tolist()
            rows += [_row(name, models, context, tp_size, link, rate, samples) for name in samples]
    return make_result(benchmark, scale, rows, "made, not measured")


def fitted(scale: str = "demo") -> SurfaceResult:
    """The surface of one launch without noise."""
    config = settings("benchmark.launches=1")
    return surface(synthetic(config, scale=scale), config.benchmark, model_config)


def _row(name, models, context, tp_size, link, rate, samples) -> TtftRow:
    own, baseline = summarise(samples[name]), summarise(samples[BASELINE])
    model = models[BASELINE if name == BOUND else name]
    return TtftRow(
        kind="measured",
        architecture=name,
        model=model.name,
        n_layer=model.n_layer,
        size="124M",
        context=context,
        batch_size=1,
        tp_size=tp_size,
        link=link,
        link_measured_bits_per_s=rate,
        engine="torch",
        mode="eager",
        device="cpu",
        dtype="float32",
        transport="socket",
        ranks_measured=tp_size,
        threads_per_rank=1,
        pinned_cores=[],
        oversubscribed=False,
        weights="random",
        comparability="",
        speedup=baseline.median / own.median - 1,
        speedup_low=None,
        speedup_high=None,
        compute_ms=None,
        exposed_communication_ms=None,
        hideable_ms=None,
        share_hidden=None,
        ttft_ms_median=own.median,
        ttft_ms_p95=own.p95,
        ttft_ms_low=own.low,
        ttft_ms_high=own.high,
        ttft_ms_min=own.minimum,
        collectives=0,
        repeats=own.repeats,
        warmup_rounds=1,
        samples_ms=samples[name],
    )
