"""Time To First Token: rows of a benchmark.

docs/ttft.md explains the protocol; docs/results/ttft.schema.json is generated from here.
"""

import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.results.cell import CellRow, Launches, Parts, TimedRow, Timeline
from pipeline.results.file import Result, Row, Typed
from pipeline.results.headline import Headline
from pipeline.results.statistics import Over
from pipeline.results.verdicts import CellVerdict

StoppedBy = Literal["interval", "repeats_max", "time_limit"]


class RunRow(CellRow):
    """What a measured row says of how it ran."""

    model: str = Field(description="model config")
    n_layer: int = Field(description="layers timed")
    engine: str = Field(description="what ran the forward: torch, tensorrt or tensorrt_llm")
    engine_version: str | None = Field(None, description="module and version of a built engine")
    mode: str = Field(description="eager or cuda graph; whole or segmented of built engines")
    device: str = Field(description="cpu or cuda")
    dtype: str = Field(description="arithmetic of the forward")
    transport: str = Field(description="what carried the sums: gloo, socket, nccl; modelled in one_rank")
    link_measured_bits_per_s: float | None = Field(None, description="one direction of the link, probed just before")
    ranks_measured: int = Field(description="ranks that really ran: tp_size, or 1 in one_rank")
    threads_per_rank: int | None = Field(description="CPU threads of each rank")
    pinned_cores: list[list[int]] = Field(description="cores of each rank; empty: not pinned")
    oversubscribed: bool = Field(description="ranks exceed cores and take turns: times show order, not overlap")
    weights: str = Field(description="trained or random")
    shared_weights: bool = Field(False, description="architectures took turns in the same memory")
    wire: str = Field("float32", description="what sums are carried in; other than float32 they lose digits")
    others_cpu_share: float | None = Field(
        None, description="share of the machine's CPU time that other processes took, the worst launch; null: not told"
    )
    steal_share: float | None = Field(
        None, description="share of it that the host took away, the worst launch; null: not told"
    )
    busy: bool | None = Field(None, description="others or the host took too much to trust the row; null: not told")
    comparability: str = Field(description="what to know before holding the row against the baseline's, in words")


class TtftRow(RunRow, TimedRow):
    """Prompt to first token: the slowest rank's time, over the counted rounds."""

    ttft_ms_median: float = Field(
        description="median over rounds, ms; of several launches the geometric mean of their medians, to which the "
        "interval belongs"
    )
    ttft_ms_p90: float | None = Field(None, description="90th percentile over all rounds, ms")
    ttft_ms_p95: float = Field(description="95th percentile, ms")
    ttft_ms_p99: float | None = Field(
        None, description="99th percentile; of fewer than 100 rounds near the slowest, ms"
    )
    ttft_ms_low: float | None = Field(
        description="lower end of the median's 95% interval, ms; null below 6 rounds. See protocol.interval"
    )
    ttft_ms_high: float | None = Field(description="upper end of the median's 95% interval, ms")
    interval_over: Over | None = Field(
        None, description="what the 95% intervals of this row are over; null: there is none"
    )
    ttft_ms_min: float = Field(description="fastest round, ms")
    speedup_low: float | None = Field(description="lower end of the speedup's 95% interval, rounds paired; or null")
    speedup_high: float | None = Field(description="upper end of the speedup's 95% interval")
    blocking_ms: float | None = Field(None, description="the row's own model, nothing overlapped, ms")
    own_hideable_ms: float | None = Field(None, description="blocking_ms − compute_ms, ms")
    own_share_hidden: float | None = Field(None, description="(blocking_ms − t) / own_hideable_ms")
    own_share_low: float | None = Field(
        None, description="lower end of its 95% interval, over launches; null: fewer than 3, or one had nothing to hide"
    )
    own_share_high: float | None = Field(None, description="upper end of its 95% interval")
    device_ms_median: float | None = Field(None, description="the same rounds by CUDA events, ms")
    flops: int | None = Field(None, description="FLOPs of one rank's prefill, counted on the model")
    flops_ratio: float | None = Field(None, description="flops / the baseline's in the same cell")
    parameters: int | None = Field(None, description="parameters of one rank, tables of tokens and positions included")
    layer_parameters: int | None = Field(None, description="those of them that its layers multiply tokens with")
    prompt_tokens_per_s: float | None = Field(None, description="batch_size · context / median")
    matrix_flops_per_s: float | None = Field(
        None, description="large matrix products on the rank's own threads, all ranks at once; median over launches"
    )
    model_flops_utilisation: float | None = Field(None, description="flops / median / matrix_flops_per_s")
    energy_joules: float | None = Field(
        None, description="one prefill: the whole processor's (RAPL) or all ranks' GPUs' (NVML); null: no counter"
    )
    collectives: int = Field(description="all-reduces of one forward on one rank")
    collective_bytes: int | None = Field(None, description="bytes that enter them on one rank")
    sent_bytes: int | None = Field(
        None, description="bytes that one rank sends for them: a ring's 2 (N − 1) / N, else N − 1 payloads"
    )
    peak_memory_bytes: int | None = Field(None, description="weights and growth in one forward; the most over ranks")
    ranks_agree: bool | None = Field(None, description="whether all ranks sampled the same token")
    repeats: int = Field(description="rounds counted, all launches together")
    stopped_by: StoppedBy | None = Field(
        None,
        description="what ended the rounds of most launches, of the last where none is commonest: all intervals narrow "
        "enough, the most rounds, or the time; null: unknown",
    )
    warmup_rounds: int = Field(description="rounds thrown away")
    paired: bool = Field(True, description="rounds alternated with the other rows of the cell")
    samples_ms: Launches = Field(description="every counted round, one inner list a launch, ms")
    compute_samples_ms: Launches | None = Field(None, description="rounds behind compute_ms")
    blocking_samples_ms: Launches | None = Field(None, description="rounds behind blocking_ms")

    @property
    def milliseconds(self) -> float:
        return self.ttft_ms_median

    @property
    def launches(self) -> Launches | None:
        return self.samples_ms

    @property
    def alternates(self) -> bool:
        return self.paired

    @property
    def is_crowded(self) -> bool:
        return self.oversubscribed

    @property
    def is_disturbed(self) -> bool:
        return bool(self.busy)


class DecodeRow(RunRow):
    """Time per output token after the first: the slowest rank's, over steps and rounds."""

    new_tokens: int = Field(description="tokens generated a round")
    ms_per_token_median: float = Field(
        description="median over rounds of the median step, ms; of several launches the geometric mean of theirs"
    )
    ms_per_token_p90: float | None = Field(None, description="90th percentile, ms")
    ms_per_token_p95: float = Field(description="95th percentile, ms")
    ms_per_token_p99: float | None = Field(None, description="99th percentile, ms")
    ms_per_token_low: float | None = Field(description="lower end of the median's 95% interval, ms; or null")
    ms_per_token_high: float | None = Field(description="upper end, ms")
    interval_over: Over | None = Field(None, description="what these intervals are over; null: there is none")
    ms_by_step: list[float] = Field(description="median over rounds of each step, ms")
    tokens_per_s: float = Field(description="batch_size / mean step")
    speedup: float = Field(description="t_standard / t − 1 of the medians over steps")
    speedup_low: float | None = Field(None, description="lower end of its 95% interval, rounds paired; or null")
    speedup_high: float | None = Field(None, description="upper end of its 95% interval")
    repeats: int = Field(description="rounds counted, all launches together")
    samples_ms: list[list[list[float]]] = Field(description="launches, rounds within them, steps within those, ms")


class ServingRow(RunRow):
    """Clients served at a time in a closed loop, each of which sends its next prompt when it has all its tokens.

    Every request counts, those of the first moment too, when all clients send at once. Time is the sum over steps of
    each one's slowest rank.
    """

    concurrency: int = Field(description="clients")
    requests: int = Field(description="prompts answered, all launches together")
    new_tokens: int = Field(description="tokens behind the first that a request asks for, on average")
    ttft_ms_p50: float = Field(description="sent to first token, queueing included: median over all requests, ms")
    ttft_ms_p90: float = Field(description="90th percentile, ms")
    ttft_ms_p95: float = Field(description="95th percentile, ms")
    ttft_ms_p99: float = Field(description="99th percentile; of fewer than 100 requests near the slowest, ms")
    ms_per_token_p50: float = Field(
        description="(last token − first) / tokens behind the first, other clients' prompts included: median, ms"
    )
    ms_per_token_p90: float = Field(description="90th percentile, ms")
    ms_per_token_p95: float = Field(description="95th percentile, ms")
    ms_per_token_p99: float = Field(description="99th percentile, ms")
    requests_per_s: float = Field(description="mean over launches of requests answered / seconds")
    output_tokens_per_s: float = Field(description="the same of tokens sampled, first ones included")
    prompt_tokens_per_s: float = Field(description="the same of tokens read")
    ttft_limit_ms: float = Field(description="TTFT that a request must keep to count as good, ms")
    ttft_limit_from: str = Field(description="where the limit comes from, in words")
    share_within_limit: float = Field(description="share of all requests whose TTFT kept it")
    goodput_per_s: float = Field(description="mean over launches of requests that kept it / seconds")
    goodput_low: float | None = Field(description="lower end of its 95% interval; null: too few launches")
    goodput_high: float | None = Field(description="upper end of its 95% interval")
    interval_over: Over | None = Field(None, description="what that interval is over; null: there is none")
    samples_ms: Launches = Field(description="TTFT of every request, one inner list a launch, ms")
    ms_per_token_samples: Launches = Field(description="milliseconds a token of the same requests")
    new_tokens_by_request: list[int] = Field(description="what each asked for, the same in every launch")
    seconds: list[float] = Field(description="from the first prompt to the last token, by launch")

    @property
    def metric(self) -> str:
        """What a tracker calls its goodput: letters, digits and what it takes beside them."""
        where = f"{self.size}_{self.context}_tp{self.tp_size}_{self.link}"
        return re.sub(r"[^\w.-]", "_", f"{self.architecture}_{self.concurrency}_clients_{where}_goodput_per_s")


class BreakdownRow(RunRow):
    """Where an instrumented forward's time goes: medians over forwards, of the slowest rank."""

    rank: int = Field(description="the slowest rank")
    forwards: int = Field(description="instrumented forwards")
    breakdown_ms: Parts = Field(description="milliseconds by kind of work")
    total_ms: float = Field(description="median of the whole instrumented forward, ms")


class WireErrorRow(Row):
    """What sums rounded for the wire do to one model: its logits against those of float32 sums, on the same ranks."""

    architecture: str = Field(description="label of the model")
    wire: str = Field(description="how the sums travelled")
    model: str = Field(description="model config")
    size: str = Field(description="label of the models' size")
    tp_size: int = Field(description="ranks that really added up")
    transport: str = Field(description="gloo or socket")
    weights: str = Field(description="trained or random; random ones have no loss worth a number")
    windows: int = Field(description="windows of tokens that were read: of validation text, or drawn")
    tokens: int = Field(description="positions with a target in them")
    relative_error: float = Field(description="root mean square of the logits' differences over that of the logits")
    largest_logit_difference: float = Field(description="the largest difference of any logit")
    top1_agreement: float = Field(description="share of positions whose likeliest token is the same")
    loss_nats: float | None = Field(None, description="mean loss a token with this wire, nats; null: random weights")
    loss_nats_float32: float | None = Field(None, description="the same windows with float32 sums, nats")
    loss_difference_nats: float | None = Field(None, description="loss_nats − loss_nats_float32, paired by window")
    loss_difference_standard_error: float | None = Field(None, description="its standard error over windows, nats")
    perplexity: float | None = Field(None, description="exp(loss_nats)")
    perplexity_float32: float | None = Field(None, description="exp(loss_nats_float32)")


class Protocol(Typed):
    """How rows were measured."""

    warmup_min: int = Field(description="rounds that a launch throws away at least")
    warmup_max: int = Field(description="rounds that a launch throws away at most")
    repeats_min: int = Field(description="rounds that a launch counts at least")
    repeats_max: int = Field(description="rounds that a launch counts at most")
    diagnostics_every: int = Field(
        1, description="of so many rounds one has what is behind compute_ms and blocking_ms; the bound is in each"
    )
    interval_width: float = Field(description="widest 95% interval, as a share of the median, that ends the rounds")
    time_limit_s: float = Field(description="seconds a cell at most, all launches together")
    launches: int = Field(1, description="launches behind a row, at most; one does not show how launches differ")
    time: str = Field(description="what a sample is, in words")
    order: str = Field(description="how variants alternate, in words")
    interval: str = Field(description="what low and high are, in words")
    busy: str = Field("", description="when a row is marked busy, in words")


class TtftResult(Result):
    """ttft-<benchmark>.json: one benchmark's grid."""

    file_name: ClassVar[str] = "results/<scale>/ttft-<benchmark>.json"
    command: ClassVar[str] = "python -m stages.benchmark_ttft benchmark=NAME"
    schema_name: Literal["ttft"] = "ttft"
    schema_version: Literal[2] = 2
    benchmark: str = Field(description="benchmark config")
    scale: str = Field(description="demo, small_gpu or paper")
    verified: str = Field(description="what is known about this way of measuring, in words")
    protocol: Protocol = Field(description="how the rows were measured")
    link_model: dict[str, Any] | None = Field(
        None, description="values of the modelled link (one_rank), and which of them are fitted to published times"
    )
    rows: list[TtftRow] = Field(description="one an architecture and cell")
    headline: Headline = Field(description="geometric means over the rows")
    verdicts: list[CellVerdict] = Field(
        default_factory=list, description="which architecture is fastest, over all cells and in each"
    )
    decode_rows: list[DecodeRow] = Field(default_factory=list, description="time per output token")
    serving_rows: list[ServingRow] = Field(default_factory=list, description="several clients at a time")
    breakdown: list[BreakdownRow] = Field(default_factory=list, description="instrumented forwards")
    timelines: list[Timeline] = Field(default_factory=list, description="one forward of the longest prompts")
    wire_errors: list[WireErrorRow] = Field(
        default_factory=list, description="what sums in other wires do to logits and loss, one an architecture and wire"
    )
    traces: list[str] = Field(default_factory=list, description="Chrome traces written beside the file")
