"""Projected times: the paper's Tables 6 and 7 with ours beside them, and every projection on its own."""

from collections.abc import Iterable, Sequence

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import PAPER_ARCHITECTURES, Inputs, ordered
from pipeline.report.speed import CELL
from pipeline.report.style import readable
from pipeline.report.table import Column, Row, Table, flat, is_measured
from pipeline.report.timed import Timed
from pipeline.results.cell import NO_LINK, TimedRow

PAPER_TABLES = {4: "table6", 8: "table7"}  # by number of ranks


def paper_table(inputs: Inputs, tp_size: int, reference: ReferenceConfig) -> Table | None:
    """The paper's Table 6 or 7: its rows, the projection for its own machine, and whatever was timed at this TP."""
    quoted: list[Row] = [
        {
            "kind": "quoted",
            "size": row.size,
            "context": row.context,
            "source": "paper",
            **{f"{name}_ms": getattr(row, f"{name}_ms") for name in PAPER_ARCHITECTURES},
            "kraken_speedup": row.standard_ms / row.kraken_ms - 1,
        }
        for row in reference.ttft
        if row.tp_size == tp_size
    ]
    ours: list[Row] = []
    for name, projected in inputs.projections.items():
        if Timed(inputs, name, projected).is_papers(reference):
            ours += _wide(projected.rows, tp_size, "projection")
    for name, timed in inputs.ttft.items():
        ours += [{**row, "scale": inputs.scale} for row in _wide(timed.rows, tp_size, name)]
    if not ours or not quoted:
        return None
    keys = [key for row in [*quoted, *ours] for key in row if key.endswith("_ms")]
    columns = [
        Column("size", "Size"),
        Column("context", "Context", "tokens", "integer"),
        Column("source", "Source"),
        Column("link", "Link"),
        *(
            Column(f"{name}_ms", readable(name), "ms", "number", 1)
            for name in ordered(key.removesuffix("_ms") for key in keys)
        ),
        Column("kraken_speedup", "Kraken's speedup", "", "signed_percent", 1),
        Column("oversubscribed", "Ranks exceed cores", format="yes_no"),
    ]
    sizes = list(dict.fromkeys(row.size for row in reference.ttft))

    def place(row: Row) -> tuple[int, int, bool]:
        return (sizes.index(row["size"]) if row["size"] in sizes else len(sizes), row["context"], is_measured(row))

    rows = sorted(quoted + ours, key=place)
    note = (
        "65B and 175B run a quarter of their layers. Quoted and projected rows are for 8x A100-40GB with NVSwitch, "
        "fp16, batch 1; other rows are for this machine and its own shapes, batch 1."
    )
    number = PAPER_TABLES[tp_size].removeprefix("table")
    heading = f"TTFT at TP {tp_size} (paper's Table {number})"
    demo = inputs.demo if any(map(is_measured, rows)) else ""
    return Table(PAPER_TABLES[tp_size], heading, columns, rows, _paper_verdict(rows, tp_size), (note,), demo)


def _wide(rows: Sequence[TimedRow], tp_size: int, source: str) -> Iterable[Row]:
    """Rows of a file as one row a cell, kind by kind; compute alone is no time to first token."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row.tp_size == tp_size and row.batch_size == 1 and row.link != NO_LINK:
            wide = found.setdefault(
                (row.kind, row.size, row.context, row.link),
                {"kind": row.kind, "size": row.size, "context": row.context, "source": source, "link": row.link},
            )
            wide[f"{row.architecture}_ms"] = row.milliseconds
            wide["oversubscribed"] = row.is_crowded
            if row.architecture == "kraken":
                wide["kraken_speedup"] = row.speedup
    return found.values()


def _paper_verdict(rows: list[Row], tp_size: int) -> str:
    sentences = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        speedups = [row["kraken_speedup"] for row in rows if row["kind"] == kind and row.get("kraken_speedup")]
        if speedups:
            sentences.append(f"{kind} {min(speedups):+.1%} to {max(speedups):+.1%} in {len(speedups)} rows")
    text = f"Kraken over standard at TP {tp_size}: {'; '.join(sentences)}."
    sizes = {row["size"] for row in rows if row["kind"] == "quoted"}
    measured = [row for row in rows if is_measured(row)]
    if measured and not any(row["size"] in sizes for row in measured):
        text += " The measured rows are other shapes on other hardware: they neither confirm nor refute the paper's."
    if any(row["oversubscribed"] for row in measured):
        text += " Where ranks exceed cores, times show order, not overlap."
    if not measured:
        text += " Nothing of this table was measured here."
    return text


def projection_table(inputs: Inputs, name: str) -> Table | None:
    """Every projected row beside the published one; fitted rows are marked."""
    result = inputs.projections[name]
    if not result.rows:
        return None
    columns = [
        *CELL,
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
    timed = Timed(inputs, name, result)
    sentences = [timed.verdict]
    if result.published_geomean_speedup is not None:
        sentences.append(f"Published for Kraken: {result.published_geomean_speedup:.1%}.")
    for group, statistics in result.errors.items():
        if statistics is not None:
            sentences.append(
                f"{readable(group).capitalize()}: mean absolute error {statistics.mean_absolute_error:.1%} over "
                f"{statistics.rows} rows, worst {statistics.worst:+.1%}."
            )
    if result.calibration is None:
        sentences.append("No published times for this device: its efficiencies are assumed.")
    rows = [flat(row) for row in result.rows]
    notes = (result.hardware_source, result.method)
    return Table(
        f"projection_{name}", f"Projection: {timed.title}", columns, rows, " ".join(filter(None, sentences)), notes
    )
