"""A projection as text for the terminal."""

from pipeline.results.cell import BOUND, Cell
from pipeline.results.projection import ProjectionResult, ProjectionRow


def text(result: ProjectionResult) -> str:
    """The grid in milliseconds, projected (and published), then errors and the headline."""
    names = list(dict.fromkeys(row.architecture for row in result.rows))
    lines = [f"TTFT projected for {result.hardware}, ms (published in brackets, * fitted)", ""]
    lines.append(f"{'size @ context, TP':<22}" + "".join(f"{'bound' if name == BOUND else name:>18}" for name in names))
    cells: dict[Cell, dict[str, ProjectionRow]] = {}
    for row in result.rows:
        cells.setdefault(row.cell, {})[row.architecture] = row
    for cell, found in cells.items():
        batch = f", B {cell.batch_size}" if cell.batch_size > 1 else ""
        label = f"{cell.size} @ {cell.context}, TP {cell.tp_size}{batch}"
        lines.append(f"{label:<22}" + "".join(f"{_cell(found.get(name)):>18}" for name in names))
    lines.append("")
    lines += [
        f"{group.replace('_', ' ')}: {errors.rows} rows, mean absolute error "
        f"{errors.mean_absolute_error:.1%}, bias {errors.bias:+.1%}, worst {errors.worst:+.1%}"
        for group, errors in result.errors.items()
        if errors
    ]
    lines += [
        f"{entry.architecture} over {entry.against}, geometric mean of {entry.rows} rows: "
        f"{entry.geomean_speedup:+.1%} ({entry.kind})"
        for entry in result.headline.all
        if entry.architecture != BOUND
    ]
    if result.published_geomean_speedup is not None:
        lines.append(f"the publication's own headline: {result.published_geomean_speedup:+.1%} (quoted)")
    return "\n".join(lines)


def _cell(row: ProjectionRow | None) -> str:
    if row is None:
        return "-"
    quoted = "" if row.published_ms is None else f" ({row.published_ms:.1f})"
    return f"{row.projected_ms:.1f}{quoted}{'*' if row.fitted else ''}"
