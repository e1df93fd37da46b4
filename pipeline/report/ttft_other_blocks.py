"""More tables of docs about Time To First Token: wires, the surface, clients served, tokens after the first."""

from typing import Any

from pipeline.report.style import readable
from pipeline.report.table import markdown
from pipeline.report.ttft_words import ends, number, speedup
from pipeline.results import BASELINE, SurfaceResult, TtftResult
from pipeline.results.cell import BOUND
from pipeline.results.ttft import TtftRow


def wires(result: TtftResult) -> str:
    """Speedups over the standard model with float32 sums, a column a wire."""
    wires = list(dict.fromkeys(row.wire for row in result.rows))
    models: dict[tuple[str | None, int, str], dict[str, TtftRow]] = {}
    for row in result.rows:
        if row.architecture != BOUND:
            name = row.architecture.removesuffix(f"_{row.wire}")
            models.setdefault((row.link, row.context, name), {})[row.wire] = row
    rows = [
        [link, context, readable(name), *(_speedup_or_time(own.get(wire)) for wire in wires)]
        for (link, context, name), own in models.items()
    ]
    return markdown(["link", "T", "model", *(f"{wire} sums" for wire in wires)], rows)


def _speedup_or_time(row: TtftRow | None) -> str:
    if row is not None and row.architecture == BASELINE:
        return f"{row.ttft_ms_median:.0f} ms{ends(row.ttft_ms_low, row.ttft_ms_high, '.0f')}"
    return speedup(row)


def wire_errors(result: TtftResult) -> str:
    """What sums of fewer bytes do to logits and perplexity."""
    rows = [
        [
            *(readable(one.architecture), one.wire, one.model, one.weights, f"{one.relative_error:.1e}"),
            *(f"{one.top1_agreement:.2%}", number(one.perplexity_float32, ".2f"), number(one.perplexity, ".2f")),
            number(one.loss_difference_nats, "+.5f") + _error(one.loss_difference_standard_error),
        ]
        for one in result.wire_errors
    ]
    headers = ["model", "sums in", "config", "weights", "error of logits", "same first choice"]
    return markdown([*headers, "perplexity, float32 sums", "perplexity", "loss, difference (nats)"], rows)


def surface(result: SurfaceResult) -> str:
    """How well the fitted model meets what was timed."""
    speedups = [(f"held-out speedup of {name}", one) for name, one in result.speedup_errors.items()]
    rows = [
        [name.replace("_", " "), one.rows, f"{one.mean_absolute_error:.1%}", f"{one.bias:+.1%}", f"{one.worst:+.1%}"]
        for name, one in [*result.errors.items(), *speedups]
    ]
    values = ", ".join(
        f"{name} {one.value:.3g}{ends(one.low, one.high, '.2g')} {one.unit}" for name, one in result.values.items()
    )
    table = markdown(["rows", "number", "mean absolute error", "bias", "worst"], rows)
    return f"{table}\n\n{result.method} Fitted: {values}."


def break_even(result: SurfaceResult) -> str:
    """Down to, or up from, which link each architecture is faster, by the fitted model."""
    rows = [
        [
            *(readable(one.architecture), readable(one.against), one.context, one.wins),
            "–" if one.link_bits_per_s is None else f"{one.link_bits_per_s / 1e6:,.0f}{_rate(one.low, one.high)}",
        ]
        for one in result.break_even
    ]
    return markdown(["model", "faster than", "T", "on links", "rate (Mbit/s)"], rows)


def _rate(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({low / 1e6:,.0f} to {high / 1e6:,.0f})"


def serving(result: TtftResult) -> str:
    """Clients served at a time."""
    rows = [
        [
            *(row.link, row.context, readable(row.architecture), row.concurrency, row.requests),
            *(f"{value:.0f}" for value in (row.ttft_ms_p50, row.ttft_ms_p90, row.ttft_ms_p95, row.ttft_ms_p99)),
            *(f"{row.ms_per_token_p50:.0f}", f"{row.output_tokens_per_s:.1f}", f"{row.ttft_limit_ms:.0f}"),
            *(f"{row.share_within_limit:.0%}", f"{row.goodput_per_s:.2f}{ends(row.goodput_low, row.goodput_high)}"),
        ]
        for row in result.serving_rows
    ]
    headers = ["link", "T", "model", "clients", "requests", "TTFT p50 (ms)", "p90", "p95", "p99", "ms a token"]
    return markdown([*headers, "tokens/s", "limit (ms)", "within", "goodput (requests/s)"], rows)


def prefill(found: list[dict[str, Any]]) -> str:
    """Our prefill against transformers' GPT-2, and what products and attention reach."""

    def ratio(row: dict[str, Any], key: str) -> str:
        low, high = row[key]["interval_95"]
        return f"{row[key]['value']:.2f}{ends(low, high)}"

    rows = [
        [
            *(row["context"], row["threads"], f"{row['median_ms']['ours']:.0f}", ratio(row, "ours_over_transformers")),
            *(ratio(row, "attention_over_sdpa"), ratio(row, "added_by_model_code")),
            *(f"{row['gflops_per_s'][part]:.0f}" for part in ("products", "attention", "sdpa")),
        ]
        for row in found
    ]
    headers = ["T", "threads", "prefill (ms)", "of transformers' GPT-2", "attention, of torch's kernel"]
    return markdown([*headers, "added to the parts alone", "products, GFLOP/s", "attention", "torch's kernel"], rows)


def batches(result: TtftResult) -> str:
    """Prompts a forward: time, percentiles, rates."""
    rows = [
        [
            *(row.link, row.context, row.batch_size, readable(row.architecture)),
            f"{row.ttft_ms_median:.0f}{ends(row.ttft_ms_low, row.ttft_ms_high, '.0f')}",
            *(number(value, ".0f") for value in (row.ttft_ms_p90, row.ttft_ms_p95, row.ttft_ms_p99)),
            *(speedup(row), number(row.prompt_tokens_per_s, ",.0f"), number(row.model_flops_utilisation, ".0%")),
            number(row.energy_joules, ".1f"),
        ]
        for row in result.rows
        if row.architecture != BOUND
    ]
    headers = ["link", "T", "batch", "model", "TTFT (ms)", "p90", "p95", "p99", "speedup", "prompt tokens/s", "MFU"]
    return markdown([*headers, "energy (J)"], rows)


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {value:.5f}"
