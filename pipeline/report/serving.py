"""Tables beside the times of a benchmark: which architecture is fastest where, clients served, what wires lose."""

from pipeline.report.inputs import Inputs
from pipeline.report.speed import CELL, RUN
from pipeline.report.table import Column, Table, flat
from pipeline.report.timed import Timed
from pipeline.results.verdicts import CellVerdict


def winners_table(inputs: Inputs, name: str) -> Table | None:
    """The fastest architecture of each cell, by how much, and whether that can be told."""
    found = [verdict for verdict in inputs.ttft[name].verdicts if verdict.scope == "cell"]
    if not found:
        return None
    columns = [
        *CELL[:5],
        Column("fastest", "Fastest"),
        Column("speedup", "Over standard", "", "signed_percent", 1),
        Column("next", "Next"),
        Column("lead", "Ahead of it by", "", "signed_percent", 1, interval=True),
        Column("told_apart", "Told apart", format="yes_no"),
        Column("beats", "Faster than standard"),
        Column("oversubscribed", "Ranks exceed cores", format="yes_no", fold=True),
        Column("busy", "Machine busy", format="yes_no", fold=True),
    ]
    heading = f"Which architecture is fastest, {Timed(inputs, name, inputs.ttft[name]).title}"
    notes = (
        "The lead's interval is of that pair alone, which was chosen after measuring. Faster than standard: the 95% "
        "interval of the speedup is above zero; where there is none, the speedup is.",
    )
    busy = {row.cell: row.busy for row in inputs.ttft[name].rows}
    rows = [{**_winner(verdict, inputs.scale), "busy": busy.get(verdict.cells[0])} for verdict in found]
    return Table(f"fastest_{name}", heading, columns, rows, notes=notes, demo=inputs.demo)


def _winner(verdict: CellVerdict, scale: str) -> dict[str, object]:
    beats = ", ".join(verdict.beats_standard) or "none"
    return {**flat(verdict), **dict(verdict.cells[0]), "beats": beats, "scale": scale}


def serving_table(inputs: Inputs, name: str) -> Table | None:
    """Clients served at a time: TTFT with queueing, time a token, goodput."""
    rows = [{**flat(row), "scale": inputs.scale} for row in inputs.ttft[name].serving_rows]
    if not rows:
        return None
    columns = [
        *CELL,
        Column("concurrency", "Clients", format="integer"),
        Column("requests", "Requests", format="integer"),
        *(Column(f"ttft_ms_{p}", f"TTFT {p}", "ms", "number", 1) for p in ("p50", "p90", "p95", "p99")),
        *(Column(f"ms_per_token_{p}", f"Per token {p}", "ms", "number", 1) for p in ("p50", "p99")),
        Column("requests_per_s", "Served", "requests/s", "number", 2),
        Column("output_tokens_per_s", "Output", "tokens/s", "number", 1),
        Column("ttft_limit_ms", "Limit", "ms", "number", 0),
        Column("share_within_limit", "Within it", "", "percent", 0),
        Column("goodput_per_s", "Goodput", "requests/s", "number", 2),
        Column("goodput_low", "95% from", "requests/s", "number", 2),
        Column("goodput_high", "95% to", "requests/s", "number", 2),
        *RUN,
        Column("ttft_limit_from", "The limit", fold=True),
    ]
    heading = f"Clients served at a time, {Timed(inputs, name, inputs.ttft[name]).title}"
    notes = ("A closed loop: each client sends its next prompt when it has all its tokens. TTFT includes queueing.",)
    return Table(f"serving_{name}", heading, columns, rows, notes=notes, demo=inputs.demo)


def wire_table(inputs: Inputs, name: str) -> Table | None:
    """What sums of fewer bytes do to logits and loss."""
    rows = [{**flat(row), "scale": inputs.scale} for row in inputs.ttft[name].wire_errors]
    if not rows:
        return None
    columns = [
        Column("architecture", "Architecture"),
        Column("wire", "Sums in"),
        Column("model", "Model"),
        Column("weights", "Weights"),
        Column("tp_size", "Ranks", format="integer", fold=True),
        Column("relative_error", "Error of logits", "", "percent", 2),
        Column("largest_logit_difference", "Largest", "", "number", 4),
        Column("top1_agreement", "Same first choice", "", "percent", 2),
        Column("perplexity_float32", "Perplexity, float32 sums", "", "number", 3),
        Column("perplexity", "Perplexity", "", "number", 3),
        Column(
            "loss_difference_nats", "Loss, difference", "nats", "signed", 5, error_key="loss_difference_standard_error"
        ),
        Column("transport", "Transport", fold=True),
    ]
    heading = f"What fewer bytes on the wire lose, {Timed(inputs, name, inputs.ttft[name]).title}"
    return Table(f"wires_{name}", heading, columns, rows, demo=inputs.demo)
