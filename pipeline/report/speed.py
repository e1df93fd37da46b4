"""Tables of Time To First Token: ours as measured, the paper's Tables 6 and 7 beside ours, projections, engines."""

import math
from typing import Any

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Body, Inputs
from pipeline.report.table import Column, Row, Table

PAPER_ARCHITECTURES = ("standard", "parallel", "kraken")
BOUND = "no_communication"
SHOWN = (*PAPER_ARCHITECTURES, "ladder", "desync", BOUND)
PAPER_TABLES = {4: "table6", 8: "table7"}
TIME = {"measured": "ttft_ms_median", "projected": "projected_ms"}


def geomean(speedups: list[float]) -> float:
    """Geometric mean of 1 + speedup, minus 1."""
    return math.exp(sum(math.log1p(value) for value in speedups) / len(speedups)) - 1


def ttft_table(inputs: Inputs, name: str, demo: str) -> Table | None:
    """Every row of one benchmark, as its ranks measured it."""
    body = inputs.ttft[name]
    rows = [
        {"kind": "measured", "scale": inputs.scale, **_plain(row), "status": body.get("verified")}
        for row in body.get("rows", [])
    ]
    if not rows:
        return None
    columns = [
        Column("size", "Size"),
        Column("context", "Context", "tokens", "integer"),
        Column("batch_size", "Batch", format="integer", fold=True),
        Column("tp_size", "Ranks", format="integer"),
        Column("link", "Link", fold=True),
        Column("architecture", "Architecture"),
        Column("ttft_ms_median", "TTFT median", "ms", "number", 2),
        Column("ttft_ms_low", "95% from", "ms", "number", 2),
        Column("ttft_ms_high", "95% to", "ms", "number", 2),
        Column("ttft_ms_p95", "p95", "ms", "number", 2),
        Column("speedup", "Speedup", "", "signed_percent", 1),
        Column("speedup_low", "95% from", "", "signed_percent", 1),
        Column("speedup_high", "95% to", "", "signed_percent", 1),
        Column("compute_ms", "Compute", "ms", "number", 2),
        Column("exposed_communication_ms", "Exposed communication", "ms", "number", 2),
        Column("hideable_ms", "Hideable", "ms", "number", 2),
        Column("share_hidden", "Hidden", "", "percent", 0),
        Column("own_share_hidden", "Hidden of its own", "", "percent", 0),
        Column("collectives", "All-reduces", format="integer"),
        Column("bytes", "Reduced", "bytes", "integer"),
        Column("peak_memory_bytes", "Peak memory", "bytes", "integer"),
        Column("repeats", "Repeats", format="integer"),
        Column("oversubscribed", "Ranks exceed cores", format="yes_no"),
        Column("engine", "Engine", fold=True),
        Column("mode", "Mode", fold=True),
        Column("device", "Device", fold=True),
        Column("dtype", "Type", fold=True),
        Column("transport", "Transport", fold=True),
        Column("status", "Status", fold=True),
        Column("comparability", "To be known"),
    ]
    notes = [
        "Prompt to first token, the slowest rank's time. Speedup is t_standard / t − 1 in the same size, context, "
        "ranks and link. Hidden is (t_standard − t) / (t_standard − t_bound); the bound is the standard model without "
        "its all-reduces, whose output is wrong.",
    ]
    if any(row.get("oversubscribed") for row in rows):
        notes.append("Where ranks exceed cores they take turns: such times show order, not overlap.")
    return Table(f"ttft_{name}", f"Time To First Token, {name}", columns, rows, _ttft_verdict(rows), notes, demo)


def _plain(row: Row) -> Row:
    """A row without its nested parts, which the figures show."""
    return {key: value for key, value in row.items() if not isinstance(value, dict | list) and key != "kind"}


def _ttft_verdict(rows: list[Row]) -> str:
    sentences = []
    for architecture in ("kraken", "parallel", "ladder", "desync"):
        chosen = [row for row in rows if row.get("architecture") == architecture and row.get("speedup") is not None]
        fair = [row for row in chosen if not row.get("oversubscribed")]
        if chosen:
            speedups = [row["speedup"] for row in fair or chosen]
            sentences.append(
                f"{architecture}: {geomean(speedups):+.1%} over standard (geometric mean of {len(speedups)} rows"
                f"{'' if fair else ' whose ranks exceed the cores'}, {min(speedups):+.1%} to {max(speedups):+.1%})."
            )
    return " ".join(sentences)


def decode_table(inputs: Inputs, name: str, demo: str) -> Table | None:
    """Time per output token after the first, where the benchmark timed it."""
    rows = [
        {"scale": inputs.scale, **_plain(row), "kind": "measured"} for row in inputs.ttft[name].get("decode_rows") or []
    ]
    if not rows:
        return None
    columns = [
        Column("size", "Size"),
        Column("context", "Context", "tokens", "integer"),
        Column("batch_size", "Batch", format="integer"),
        Column("tp_size", "Ranks", format="integer"),
        Column("link", "Link"),
        Column("architecture", "Architecture"),
        Column("new_tokens", "New tokens", format="integer"),
        Column("ms_per_token_median", "Per token", "ms", "number", 2),
        Column("ms_per_token_low", "95% from", "ms", "number", 2),
        Column("ms_per_token_high", "95% to", "ms", "number", 2),
        Column("tokens_per_s", "Speed", "tokens/s", "number", 1),
        Column("speedup", "Speedup", "", "signed_percent", 1),
        Column("oversubscribed", "Ranks exceed cores", format="yes_no"),
    ]
    return Table(f"decode_{name}", f"Time per output token, {name}", columns, rows, demo=demo)


def paper_table(inputs: Inputs, tp_size: int, reference: ReferenceConfig, demo: str) -> Table | None:
    """The paper's Table 6 or 7: its rows, projections for its own machine, and whatever was measured at this TP."""
    rows: list[Row] = [
        _wide("quoted", row.size, row.context, {name: getattr(row, f"{name}_ms") for name in PAPER_ARCHITECTURES})
        | {"source": "paper", "hardware": reference.ttft_hardware}
        for row in reference.ttft
        if row.tp_size == tp_size
    ]
    projections = [body for body in inputs.projections.values() if is_papers(body, reference)]
    ours: list[Row] = []
    for body in projections:
        ours += _gathered("projected", body, tp_size, source="projection", hardware=body.get("hardware"))
    for name, body in inputs.ttft.items():
        ours += _gathered("measured", body, tp_size, source=name, scale=inputs.scale, hardware="this machine")
    if not ours or not rows:
        return None
    columns = [
        Column("size", "Size"),
        Column("context", "Context", "tokens", "integer"),
        Column("source", "Source"),
        Column("link", "Link"),
        *(Column(f"{name}_ms", name.replace("_", " "), "ms", "number", 1) for name in SHOWN),
        Column("kraken_speedup", "Kraken's speedup", "", "signed_percent", 1),
        Column("oversubscribed", "Ranks exceed cores", format="yes_no"),
    ]
    number = {4: "6", 8: "7"}[tp_size]
    merged = sorted(
        rows + ours, key=lambda row: (_place(row, reference), row["kind"] == "measured", row["kind"] != "quoted")
    )
    return Table(
        PAPER_TABLES[tp_size],
        f"TTFT at TP {tp_size} (paper's Table {number})",
        columns,
        merged,
        _paper_verdict(merged, tp_size),
        (
            "65B and 175B run a quarter of their layers. Quoted and projected rows are for 8x A100-40GB with NVSwitch, "
            "fp16, batch 1; measured rows are for this machine and its own shapes.",
        ),
        demo if any(row["kind"] == "measured" for row in merged) else "",
    )


def is_papers(body: Body, reference: ReferenceConfig) -> bool:
    return body.get("hardware") == reference.ttft_hardware and body.get("benchmark") == reference.ttft_benchmark


def _wide(kind: str, size: str, context: int, times: dict[str, float]) -> Row:
    row: Row = {"kind": kind, "size": size, "context": context, **{f"{name}_ms": ms for name, ms in times.items()}}
    if times.get("standard") and times.get("kraken"):
        row["kraken_speedup"] = times["standard"] / times["kraken"] - 1
    return row


def _gathered(kind: str, body: Body, tp_size: int, **more: Any) -> list[Row]:
    """Long rows of a result file as one row a size, context and link."""
    cells: dict[tuple[Any, ...], dict[str, float]] = {}
    crowded: dict[tuple[Any, ...], bool | None] = {}
    for row in body.get("rows", []):
        milliseconds = row.get(TIME[kind])
        if row.get("tp_size") != tp_size or milliseconds is None or row.get("batch_size", 1) != 1:
            continue
        key = (row.get("size"), row.get("context"), row.get("link"))
        cells.setdefault(key, {})[row["architecture"]] = milliseconds
        crowded[key] = row.get("oversubscribed")
    return [
        {**_wide(kind, key[0], key[1], times), "link": key[2], "oversubscribed": crowded[key], **more}
        for key, times in cells.items()
    ]


def _place(row: Row, reference: ReferenceConfig) -> tuple[int, int]:
    sizes = list(dict.fromkeys(published.size for published in reference.ttft))
    return (sizes.index(row["size"]) if row["size"] in sizes else len(sizes), row["context"])


def _paper_verdict(rows: list[Row], tp_size: int) -> str:
    sentences = []
    words = {"quoted": "the paper", "projected": "our projection", "measured": "measured here"}
    for kind, name in words.items():
        speedups = [row["kraken_speedup"] for row in rows if row["kind"] == kind and "kraken_speedup" in row]
        if speedups:
            sentences.append(f"{name}: Kraken {geomean(speedups):+.1%} (geometric mean of {len(speedups)} rows)")
    text = f"At TP {tp_size}, " + "; ".join(sentences) + "."
    quoted_sizes = {row["size"] for row in rows if row["kind"] == "quoted"}
    measured = [row for row in rows if row["kind"] == "measured"]
    if measured and not any(row["size"] in quoted_sizes for row in measured):
        text += " The measured rows are other shapes on other hardware: they neither confirm nor refute the paper's."
    if any(row.get("oversubscribed") for row in measured):
        text += " Where ranks exceed cores, times show order, not overlap."
    if not measured:
        text += " Nothing of this table was measured here."
    return text


def projection_table(inputs: Inputs, name: str) -> Table | None:
    """Every projected row beside the published one; fitted rows are marked."""
    body = inputs.projections[name]
    rows = [{**_plain(row), "kind": "projected"} for row in body.get("rows", [])]
    if not rows:
        return None
    columns = [
        Column("size", "Size"),
        Column("context", "Context", "tokens", "integer"),
        Column("tp_size", "Ranks", format="integer"),
        Column("architecture", "Architecture"),
        Column("projected_ms", "Projected", "ms", "number", 2),
        Column("published_ms", "Published", "ms", "number", 1),
        Column("error_relative", "Error", "", "signed_percent", 1),
        Column("fitted", "Used to fit", format="yes_no"),
        Column("speedup", "Speedup", "", "signed_percent", 1),
        Column("published_speedup", "Published speedup", "", "signed_percent", 1),
        Column("exposed_communication_ms", "Exposed communication", "ms", "number", 2),
        Column("share_hidden", "Hidden", "", "percent", 0),
        Column("collectives", "All-reduces", format="integer"),
    ]
    title = f"Projection: {body.get('benchmark')} on {body.get('hardware')}"
    notes = [note for note in (body.get("hardware_source"), body.get("method")) if note]
    return Table(f"projection_{name}", title, columns, rows, _projection_verdict(body), notes)


def _projection_verdict(body: Body) -> str:
    sentences = []
    headline = body.get("headline") or {}
    if headline.get("kraken_geomean_speedup") is not None:
        published = headline.get("published_geomean_speedup")
        sentences.append(
            f"Kraken over standard, geometric mean of {headline['rows']} rows: projected "
            f"{headline['kraken_geomean_speedup']:.1%}"
            + ("." if published is None else f", published {published:.1%}.")
        )
    for group, words in (("fitted", "fitted rows"), ("held_out", "held-out rows"), ("held_out_kraken", "Kraken alone")):
        statistics = (body.get("errors") or {}).get(group)
        if statistics:
            sentences.append(
                f"{words}: mean absolute error {statistics['mean_absolute_error']:.1%} over {statistics['rows']}, "
                f"worst {statistics['worst']:+.1%}."
            )
    if body.get("calibration") is None:
        sentences.append("No published times for this device: its efficiencies are assumed.")
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def engines_table(inputs: Inputs, demo: str) -> Table | None:
    """What was built: one row an engine folder."""
    rows: list[Row] = []
    for folder, body in inputs.engines.items():
        rows.append(
            {
                "kind": "measured",
                **({"scale": inputs.scale} if body.get("model") in inputs.models else {}),
                "engine_folder": folder,
                "model": body.get("model"),
                "engine": body.get("engine"),
                "ranks": body.get("ranks"),
                **{key: body.get(key) for key in ("collectives", "module", "version", "target", "dtype", "mode")},
                **{key: body.get(key) for key in ("size_bytes", "build_s", "weights", "status")},
            }
        )
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
    return Table("engines", "Inference engines", columns, rows, notes=notes, demo=demo)
