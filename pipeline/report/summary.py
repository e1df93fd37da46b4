"""The report as a few lines for the terminal."""

from typing import Any

from pipeline.files import plain_name
from pipeline.report.table import Column, is_measured

WIDEST = 12  # rows of a table that are shown
SHOWN = {
    "training": ("model", "val_loss_nats", "below_unigram_nats", "tokens_per_s_median"),
    "perplexity": ("model", "loss_nats", "perplexity", "difference_nats"),
    "superglue_0shot": ("model", "mean", "mean_difference", "data"),
    "superglue_3shot": ("model", "mean", "mean_difference", "published_mean", "data"),
    "engines": ("engine_folder", "ranks", "collectives", "size_bytes", "build_s", "target"),
}
TTFT = ("size", "context", "tp_size", "link", "architecture", "ttft_ms_median", "speedup", "share_hidden")
LOSSES = ("size", "tokens", "arm", "loss_nats", "difference_nats", "diverged", "learning_rate")


def summary(report: dict[str, Any]) -> str:
    """Measured rows of the main tables, the headline, and what is missing; plain text."""
    parts = [f"{report['title']}"]
    if report.get("demo"):
        parts.append(report["demo"])
    parts += [f"\n{study['line']}" for study in report["studies"] if study["line"]]
    for name, table in report["tables"].items():
        keys = SHOWN.get(plain_name(name)) or (TTFT if name.startswith("ttft_") else None)
        if table["study"]:
            keys = LOSSES if name.startswith("losses_") else None
        rows = [row for row in table["rows"] if is_measured(row)] if keys else []
        if not keys or not rows:
            continue
        columns = [Column(**column) for column in table["columns"] if column["key"] in keys]
        kinds = list(dict.fromkeys(row["kind"] for row in rows))
        if len(kinds) > 1:
            columns.append(Column("kind", "Origin"))
        parts.append(f"\n{table['title']} ({' / '.join(kinds)})\n{_text(columns, rows)}")
        if table["verdict"]:
            parts.append(table["verdict"])
    headline = report["headline"]
    parts += [f"fault: {fault}" for fault in report["faults"]]
    lines = [
        f"  {item['label']}: {item['text']}{_interval(item)} ({item['kind']}; {item['where']})"
        for item in headline["values"]
    ]
    if lines:
        parts.append(f"\n{headline['what']}\n" + "\n".join(lines))
    missing = [*(item for study in report["studies"] for item in study["missing"]), *report["missing"]]
    if missing:
        parts.append("\nnot here: " + "; ".join(item["what"] for item in missing))
    return "\n".join(parts)


def _interval(item: dict[str, Any]) -> str:
    return "" if item["low"] is None else f", 95% {item['low']:+.1%} to {item['high']:+.1%}"


def _text(columns: list[Column], rows: list[dict[str, Any]]) -> str:
    """Aligned columns, numbers to the right."""
    shown = rows[:WIDEST]
    cells = [[column.text(row) for column in columns] for row in shown]
    heads = [column.label + (f" [{column.unit}]" if column.unit else "") for column in columns]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]

    def line(texts: list[str]) -> str:
        padded = [
            text.rjust(width) if column.is_numeric else text.ljust(width)
            for text, width, column in zip(texts, widths, columns, strict=True)
        ]
        return "  " + "  ".join(padded).rstrip()

    more = [f"  … and {len(rows) - len(shown)} more rows in the report"] if len(rows) > len(shown) else []
    return "\n".join([line(heads), *map(line, cells), *more])
