"""A projection as text for the terminal."""

from typing import Any

from pipeline.projection.grid import BOUND


def text(body: dict[str, Any]) -> str:
    """The grid in milliseconds, projected (and published), then errors and the headline."""
    names = list(dict.fromkeys(row["architecture"] for row in body["rows"]))
    lines = [f"TTFT projected for {body['hardware']}, ms (published in brackets, * fitted)", ""]
    lines.append(f"{'size @ context, TP':<22}" + "".join(f"{_title(name):>18}" for name in names))
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in body["rows"]:
        key = (row["size"], row["context"], row["tp_size"], row["batch_size"])
        cells.setdefault(key, {})[row["architecture"]] = row
    for (size, context, tp_size, batch_size), cell in cells.items():
        label = f"{size} @ {context}, TP {tp_size}" + (f", B {batch_size}" if batch_size > 1 else "")
        lines.append(f"{label:<22}" + "".join(f"{_cell(cell.get(name)):>18}" for name in names))
    lines.append("")
    for group in ("fitted", "held_out", "held_out_kraken"):
        statistics = body["errors"][group]
        if statistics:
            lines.append(
                f"{group.replace('_', ' ')}: {statistics['rows']} rows, mean absolute error "
                f"{statistics['mean_absolute_error']:.1%}, bias {statistics['bias']:+.1%}, "
                f"worst {statistics['worst']:+.1%}"
            )
    headline = body["headline"]
    if headline:
        published = headline["published_geomean_speedup"]
        beside = "" if published is None else f"; published {published:.1%}"
        lines.append(
            f"Kraken over standard, geometric mean of {headline['rows']} rows: projected "
            f"{headline['kraken_geomean_speedup']:.1%}{beside}"
        )
    return "\n".join(lines)


def _title(name: str) -> str:
    return "bound" if name == BOUND else name


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    published = row["published_ms"]
    quoted = "" if published is None else f" ({published:.1f})"
    return f"{row['projected_ms']:.1f}{quoted}{'*' if row['fitted'] else ''}"
