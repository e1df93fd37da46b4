"""The whole result of a benchmark, with its traces written beside it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.benchmark.idle import OTHERS_LIMIT, STEAL_LIMIT
from pipeline.benchmark.rows import breakdown_rows, decode_rows, ttft_rows
from pipeline.benchmark.serving import serving_rows
from pipeline.benchmark.trace import timeline, write_traces
from pipeline.benchmark.ttft import Decoded, Measured, Served, rules_of
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.results.headline import Named, headline
from pipeline.results.statistics import LEAST_LAUNCHES, LEAST_ROUNDS
from pipeline.results.statistics import Over as IntervalOver
from pipeline.results.ttft import Protocol, TtftResult, TtftRow, WireErrorRow
from pipeline.results.verdicts import verdicts

VERIFIED = {
    "cpu": "ranks on CPU (gloo or socket): tensor-parallel logits are tested against one process to 1e-5",
    "cuda": "ranks over NCCL on GPUs: this path is written but was not run when the project was made",
}
VERIFIED_ONE_RANK = {
    "cpu": "one process on CPU; the modelled link takes no core",
    "cuda": "one GPU: this path is written but was not run when the project was made",
}
TIME = "prefill of B×T tokens to the sampled first token; ranks released by a barrier; maximum over ranks"
INTERVALS: dict[IntervalOver | None, str] = {
    "launches": "95% interval over launches: Student's t of the logarithms of their medians (of their ratios: paired)",
    "rounds": "95% interval of the median over the rounds of one launch: how launches differ is not in it; none below "
    f"{LEAST_ROUNDS} rounds",
    None: f"none: {LEAST_LAUNCHES} launches, or {LEAST_ROUNDS} rounds of a single one, would be needed",
}
ORDER = "every variant once a round, rotated; the whole grid once a launch, in an order of its own"
BUSY = (
    f"a row is busy where other processes took more than {OTHERS_LIMIT:.0%} of the cores that ranks use, or the host "
    f"more than {STEAL_LIMIT:.0%} of all CPU time, in any launch"
)
TIME_ONE_RANK = "one rank's prefill to the sampled first token; no other rank runs"


def make_result(
    benchmark: BenchmarkConfig, scale: str, rows: Sequence[TtftRow], verified: str, time: str = TIME, **more: Any
) -> TtftResult:
    """Rows with their headline and protocol; `more` are further fields."""
    named = Named(benchmark.headline_links, benchmark.headline_contexts)
    launches = max((len(row.samples_ms) for row in rows), default=1)
    over_what = dict.fromkeys(row.interval_over for row in rows)
    return TtftResult(
        benchmark=benchmark.name,
        scale=scale,
        verified=verified,
        protocol=Protocol(
            **asdict(rules_of(benchmark)),
            time=time,
            order=ORDER,
            launches=launches,
            interval="; ".join(INTERVALS[over] for over in over_what),
            busy=BUSY,
        ),
        rows=list(rows),
        headline=headline(rows, named),
        verdicts=verdicts(rows, named),
        **more,
    )


def ranks_result(
    measured: Sequence[Measured],
    decoded: Sequence[Decoded],
    served: Sequence[Served],
    benchmark: BenchmarkConfig,
    scale: str,
    traces: Path,
    wire_errors: Sequence[WireErrorRow] = (),
) -> TtftResult:
    """What ranks measured; one forward of the longest prompts is drawn out, and written as a trace into `traces`."""
    shown = _shown(measured) if benchmark.trace else []
    return make_result(
        benchmark,
        scale,
        [row for one in measured for row in ttft_rows(one, benchmark)],
        VERIFIED[measured[0].resources.device],
        decode_rows=[row for one in decoded for row in decode_rows(one, benchmark)],
        serving_rows=serving_rows(served, benchmark),
        breakdown=[row for one in measured if one.instrumented for row in breakdown_rows(one, benchmark)],
        timelines=[timeline(one, name) for one in shown for name in one.models.by_architecture],
        wire_errors=list(wire_errors),
        traces=[str(path) for one in shown for path in write_traces(traces, one)],
    )


def one_rank_result(
    measured: Sequence[Measured], benchmark: BenchmarkConfig, scale: str, link_model: dict[str, Any]
) -> TtftResult:
    """One rank's share, with the link model whose durations stand in for the collectives."""
    rows = [row for one in measured for row in ttft_rows(one, benchmark)]
    verified = VERIFIED_ONE_RANK[measured[0].resources.device]
    return make_result(benchmark, scale, rows, verified, TIME_ONE_RANK, link_model=link_model)


def _shown(measured: Sequence[Measured]) -> list[Measured]:
    """The cells that are traced: the longest prompt of each size, number of ranks and link."""
    best: dict[tuple[str, int, str], Measured] = {}
    for one in measured:
        key = (one.models.size, one.models.tp_size, one.link)
        if one.instrumented and (key not in best or one.cell.context > best[key].cell.context):
            best[key] = one
    return list(best.values())
