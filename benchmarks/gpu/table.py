"""The figures as tables: at the end of a run, and in docs/gpu.md. What nobody has measured says so."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.part import Part, Wanted
from benchmarks.gpu.place import REFERENCE, ROOT
from benchmarks.gpu.results import GpuResult, Unit
from pipeline import files

DOCS = ROOT / "docs" / "gpu.md"
BEGIN, END = "<!-- figures: python -m benchmarks.gpu --docs -->", "<!-- end of figures -->"
UNKNOWN = "not measured"


def text(parts: Sequence[Part], found: Mapping[str, GpuResult]) -> str:
    """For a terminal: part, figure, what was found, what to reach; parts without an answer in a line."""
    lines = [("part", "figure", "found", "to reach", "")]
    for part in parts:
        result = found.get(part.name)
        if result is None:
            lines.append((part.name, "", UNKNOWN, "", ""))
            continue
        for wanted in part.wanted:
            value = result.value(wanted.name)
            if value is None:
                continue
            lines.append((part.name, wanted.name, shown(value, wanted.unit), goal(wanted), _met(wanted, value)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    aligned = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    notes = [f"{name}: {note}" for name, result in found.items() for note in result.notes]
    return "\n".join([*(line.rstrip() for line in aligned), "", *notes])


def markdown(parts: Sequence[Part], reference: Path = REFERENCE) -> str:
    """For the docs: a column a device of results/reference, or one that says that nothing was measured."""
    folders = sorted(folder for folder in reference.glob("*") if folder.is_dir())
    found = {folder.name: _results(parts, folder) for folder in folders}
    devices = [name for name, results in found.items() if results]
    lines = [["part", "figure", "to reach", *(devices or ["measured"])], ["---"] * (3 + max(1, len(devices)))]
    for part in parts:
        for wanted in part.wanted:
            cells = [_cell(found[device].get(part.name), wanted) for device in devices] or [UNKNOWN]
            lines.append([f"`{part.name}`", wanted.name, goal(wanted), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def update_docs(parts: Sequence[Part], path: Path = DOCS, reference: Path = REFERENCE) -> None:
    """Write the table between its marks in `path`; raises ValueError where they are missing."""
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    files.write_text(path, f"{before}{BEGIN}\n{markdown(parts, reference)}\n{END}{after}")


def shown(value: float | None, unit: Unit) -> str:
    """A number as people read it."""
    if value is None:
        return UNKNOWN
    if unit == "yes/no":
        return "yes" if value else "no"
    if unit == "share":
        return f"{value:.1%}"
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB"
    if unit == "tokens/s":
        return f"{value:,.0f} tokens/s"
    number = f"{value:.4g}" if value != int(value) else f"{value:,.0f}"
    return f"{number} {unit}".strip()


def goal(wanted: Wanted) -> str:
    """What a figure should come to; empty where nothing was set."""
    if wanted.at_least is None:
        return ""
    return "yes" if wanted.unit == "yes/no" else f"at least {shown(wanted.at_least, wanted.unit)}"


def _met(wanted: Wanted, value: float | None) -> str:
    if wanted.at_least is None or value is None:
        return ""
    return "reached" if value >= wanted.at_least else "missed"


def _cell(result: GpuResult | None, wanted: Wanted) -> str:
    return shown(None if result is None else result.value(wanted.name), wanted.unit)


def _results(parts: Sequence[Part], folder: Path) -> dict[str, GpuResult]:
    """The measured results of one device by part."""
    found = {part.name: part.any_result(folder) for part in parts}
    return {name: result for name, result in found.items() if result is not None and not result.rehearsal}
