"""Tables of what was timed and built here: Time To First Token, tokens after the first, engines."""

from pipeline.report.inputs import Inputs
from pipeline.report.table import Column, Table, flat
from pipeline.report.timed import Timed

CELL = (
    Column("size", "Size"),
    Column("context", "Context", "tokens", "integer"),
    Column("batch_size", "Batch", format="integer", fold=True),
    Column("tp_size", "Ranks", format="integer"),
    Column("link", "Link", fold=True),
    Column("architecture", "Architecture"),
)
SPEEDUP = (
    Column("speedup", "Speedup", "", "signed_percent", 1),
    Column("speedup_low", "95% from", "", "signed_percent", 1),
    Column("speedup_high", "95% to", "", "signed_percent", 1),
)
RUN = (
    Column("oversubscribed", "Ranks exceed cores", format="yes_no"),
    Column("busy", "Machine busy", format="yes_no", fold=True),
    Column("engine", "Engine", fold=True),
    Column("mode", "Mode", fold=True),
    Column("device", "Device", fold=True),
    Column("dtype", "Type", fold=True),
    Column("wire", "Sums in", fold=True),
    Column("transport", "Transport", fold=True),
)


def ttft_table(inputs: Inputs, name: str) -> Table | None:
    """Every row of one benchmark as its file holds it."""
    result = inputs.ttft[name]
    rows = [{**flat(row), "scale": inputs.scale, "status": result.verified} for row in result.rows]
    if not rows:
        return None
    columns = [
        *CELL,
        Column("ttft_ms_median", "TTFT median", "ms", "number", 2),
        Column("ttft_ms_low", "95% from", "ms", "number", 2),
        Column("ttft_ms_high", "95% to", "ms", "number", 2),
        Column("ttft_ms_p90", "p90", "ms", "number", 2),
        Column("ttft_ms_p95", "p95", "ms", "number", 2),
        Column("ttft_ms_p99", "p99", "ms", "number", 2),
        *SPEEDUP,
        Column("interval_over", "Intervals over", fold=True),
        Column("compute_ms", "Compute", "ms", "number", 2),
        Column("exposed_communication_ms", "Exposed communication", "ms", "number", 2),
        Column("hideable_ms", "Hideable", "ms", "number", 2),
        Column("share_hidden", "Hidden", "", "percent", 0),
        Column("own_share_hidden", "Hidden of its own", "", "percent", 0),
        Column("own_share_low", "95% from", "", "percent", 0),
        Column("own_share_high", "95% to", "", "percent", 0),
        Column("collectives", "All-reduces", format="integer"),
        Column("collective_bytes", "Reduced", "bytes", "integer"),
        Column("flops_ratio", "FLOPs of standard's", "", "number", 3),
        Column("parameters", "Parameters a rank", format="integer"),
        Column("prompt_tokens_per_s", "Prompt", "tokens/s", "number", 0),
        Column("model_flops_utilisation", "MFU", "", "percent", 0),
        Column("energy_joules", "Energy", "J", "number", 2),
        Column("peak_memory_bytes", "Peak memory", "bytes", "integer"),
        Column("repeats", "Repeats", format="integer"),
        *RUN,
        Column("status", "Status", fold=True),
        Column("comparability", "To be known"),
    ]
    notes = [
        "Prompt to first token, the slowest rank's time. Speedup is t_standard / t − 1 in the same size, context, "
        "ranks and link. Hidden is (t_standard − t) / (t_standard − t_bound); the bound is the standard model without "
        "its all-reduces, whose output is wrong.",
    ]
    timed = Timed(inputs, name, result)
    if any(row.oversubscribed for row in result.rows):
        notes.append("Where ranks exceed cores they take turns: such times show order, not overlap.")
    return Table(
        f"ttft_{name}", f"Time To First Token, {timed.title}", columns, rows, timed.verdict, notes, inputs.demo
    )


def decode_table(inputs: Inputs, name: str) -> Table | None:
    """Time per output token after the first, where the benchmark timed it."""
    rows = [{**flat(row), "scale": inputs.scale} for row in inputs.ttft[name].decode_rows]
    if not rows:
        return None
    columns = [
        *CELL,
        Column("new_tokens", "New tokens", format="integer"),
        Column("ms_per_token_median", "Per token", "ms", "number", 2),
        Column("ms_per_token_low", "95% from", "ms", "number", 2),
        Column("ms_per_token_high", "95% to", "ms", "number", 2),
        Column("ms_per_token_p95", "p95", "ms", "number", 2),
        Column("ms_per_token_p99", "p99", "ms", "number", 2),
        Column("tokens_per_s", "Speed", "tokens/s", "number", 1),
        *SPEEDUP,
        *RUN,
    ]
    heading = f"Time per output token, {Timed(inputs, name, inputs.ttft[name]).title}"
    return Table(f"decode_{name}", heading, columns, rows, demo=inputs.demo)


def engines_table(inputs: Inputs) -> Table | None:
    """What was built: one row an engine folder."""
    rows = [
        {**flat(engine), "engine_folder": folder, **({"scale": inputs.scale} if engine.model in inputs.models else {})}
        for folder, engine in inputs.engines.items()
    ]
    if not rows:
        return None
    columns = [
        Column("engine_folder", "Engine"),
        Column("ranks", "Ranks", format="integer"),
        Column("collectives", "All-reduces", format="integer"),
        Column("size_bytes", "Size, all ranks", "bytes", "integer"),
        Column("build_s", "Build, all ranks", "s", "number", 1),
        Column("target", "Target"),
        Column("dtype", "Type"),
        Column("mode", "Mode"),
        Column("weights", "Weights"),
        Column("module", "Module"),
        Column("version", "Version"),
        Column("status", "Status"),
    ]
    notes = ("Building needs no GPU, running does. TTFT rows name the engine that was timed.",)
    return Table("engines", "Inference engines", columns, rows, notes=notes, demo=inputs.demo)
