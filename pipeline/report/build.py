"""From result files to the report: which tables and figures there are, the headline, what is missing."""

import csv
import io
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline import files, provenance
from pipeline.config import Config
from pipeline.config.reference import ReferenceConfig
from pipeline.report import line_figures, quality, quality_figures, speed, speed_figures, superglue, time_figures
from pipeline.report.inputs import Body, Inputs, read_inputs
from pipeline.report.page import page
from pipeline.report.style import Figure
from pipeline.report.table import Table

DEMO = (
    "Demo scale: measured rows come from tiny models on documentation text, on the machine of this run. They show that "
    "everything works and say nothing about quality or speed at the paper's scale."
)
DEMO_LABEL = "Demo scale: measured rows show that everything works, not what the paper's models would do."


Compare = Callable[[Body, Body], dict[str, Any]]  # two task results -> what the first says under `baseline`


def write_report(config: Config, fingerprint: str, compare: Compare | None = None) -> dict[str, Any]:
    """Read the scale's results, write report.json, tables, figures and the page; returns report.json's body.

    Task results that were scored with no baseline at hand are compared with the first model's by `compare`.
    Raises PipelineError where there are no result files, OutputError where the folder cannot be written.
    """
    folder = Path(config.paths.report)
    order = config.experiment.models.get(config.scale.name, []) if config.experiment else []
    inputs = read_inputs(Path(config.paths.results), Path(config.paths.engines), config.scale.name, order)
    files.check_writable(folder)
    if compare is not None:
        inputs.compare_tasks(compare)
    tables = make_tables(inputs, config.reference)
    figures = make_figures(inputs, config.reference, tables)
    body: dict[str, Any] = {
        "scale": config.scale.name,
        "title": _title(config),
        "demo": DEMO if inputs.scale == "demo" else "",
        "headline": headline(inputs, config.reference),
        "tables": {table.name: table.as_dict() for table in tables},
        "figures": {figure.name: figure.as_dict() for figure in figures},
        "missing": missing(inputs),
        "faults": inputs.faults,
        "sources": inputs.sources,
        "reference": config.reference.source,
        "provenance": provenance.describe(fingerprint),
    }
    body = {key: without_nan(value) for key, value in body.items()}
    _write(folder, body, tables, figures)
    return body


def _title(config: Config) -> str:
    what = config.experiment.title if config.experiment else "results"
    return f"{config.scale.name} scale: {what}"


def make_tables(inputs: Inputs, reference: ReferenceConfig) -> list[Table]:
    """Every table that the results fill, quality first."""
    demo = DEMO_LABEL if inputs.scale == "demo" else ""
    candidates: list[Table | None] = [
        quality.models_table(inputs, demo),
        quality.training_table(inputs, demo),
        quality.perplexity_table(inputs, reference, demo),
        *superglue.task_tables(inputs, reference, demo),
        *(speed.ttft_table(inputs, name, demo) for name in inputs.ttft),
        *(speed.decode_table(inputs, name, demo) for name in inputs.ttft),
        *(speed.paper_table(inputs, tp_size, reference, demo) for tp_size in speed.PAPER_TABLES),
        *(speed.projection_table(inputs, name) for name in inputs.projections),
        speed.engines_table(inputs, demo),
    ]
    return [table for table in candidates if table is not None]


def make_figures(inputs: Inputs, reference: ReferenceConfig, tables: list[Table]) -> list[Figure]:
    """Every figure that the results fill."""
    demo = DEMO_LABEL if inputs.scale == "demo" else ""
    by_name = {table.name: table for table in tables}
    found: list[Figure | None] = [quality_figures.training_curves(inputs, demo)]
    if "perplexity" in by_name:
        found.append(quality_figures.perplexity_bars(by_name["perplexity"]))
    for name, bodies in inputs.tasks.items():
        if name.startswith("superglue"):
            found.append(quality_figures.superglue_bars(by_name[name], superglue.chance(bodies)))
    for name, body in inputs.ttft.items():
        found += _speed_figures(name, body, "measured", demo)
        found.append(line_figures.against_link(name, body, demo))
    papers = [body for body in inputs.projections.values() if speed.is_papers(body, reference)]
    for name, body in inputs.projections.items():
        found += _speed_figures(f"projected_{name}", body, "projected", "")
        found += [line_figures.link_sweep(name, body), speed_figures.scatter(name, body, reference)]
    if papers or inputs.ttft:
        found.append(speed_figures.published_speedups(reference, papers[0] if papers else None))
    return [figure for figure in found if figure is not None]


def _speed_figures(name: str, body: dict[str, Any], kind: str, demo: str) -> Iterable[Figure | None]:
    yield speed_figures.ttft_bars(name, body, kind, demo)
    yield time_figures.breakdown_bars(name, body, kind, demo)
    yield time_figures.timeline(name, body, kind, demo)
    yield line_figures.against_tp(name, body, kind, demo)


def headline(inputs: Inputs, reference: ReferenceConfig) -> dict[str, Any]:
    """Kraken's geometric mean speedup: published, projected for the paper's machine, measured here."""
    published = reference.ttft_headline_geomean
    values = [_value("published", published, "quoted", f"{reference.source}, {len(reference.ttft)} rows")]
    for body in inputs.projections.values():
        projected = (body.get("headline") or {}).get("kraken_geomean_speedup")
        if projected is not None:
            where = f"{body['benchmark']} on {body['hardware']}, {body['headline']['rows']} rows"
            values.append(_value(f"projected, {body['hardware']}", projected, "projected", where))
    for name, body in inputs.ttft.items():
        rows = [row for row in body.get("rows", []) if row.get("architecture") == "kraken"]
        rows = [row for row in rows if row.get("speedup") is not None]
        fair = [row for row in rows if not row.get("oversubscribed")]
        if rows:
            where = f"{len(fair or rows)} rows" + ("" if fair else ", ranks exceed cores: shows order, not overlap")
            mean = speed.geomean([row["speedup"] for row in fair or rows])
            values.append(_value(f"measured, {name}, {inputs.scale} scale", mean, "measured", where))
    return {"what": "Kraken's TTFT speedup over the standard model, geometric mean", "values": values}


def _value(label: str, value: float, kind: str, where: str) -> dict[str, Any]:
    return {"label": label, "value": value, "text": f"{value:+.1%}", "kind": kind, "where": where}


def missing(inputs: Inputs) -> list[dict[str, str]]:
    """What the report leaves out, and the command that makes it."""
    scale = f"scale={inputs.scale}"
    wanted = [
        (inputs.training, "training", f"python -m stages.train model=NAME {scale}"),
        (inputs.perplexity, "perplexity", f"python -m stages.evaluate_perplexity model=NAME {scale}"),
        (
            {name for name in inputs.tasks if name.startswith("superglue")},
            "SuperGLUE",
            f"python -m stages.evaluate_superglue model=NAME evaluation=superglue_3shot {scale}",
        ),
        (inputs.engines, "engines", f"python -m stages.build_engine model=NAME engine=tensorrt {scale}"),
        (inputs.ttft, "measured TTFT", f"python -m stages.benchmark_ttft {scale}"),
        (inputs.projections, "projected TTFT", f"python -m stages.project_ttft benchmark=ttft_paper {scale}"),
    ]
    return [{"what": what, "command": command} for present, what, command in wanted if not present]


def without_nan(value: Any) -> Any:
    """The same data with null for NaN and infinities, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(folder: Path, body: dict[str, Any], tables: list[Table], figures: list[Figure]) -> None:
    """Each file atomically, report.json last; files of the report before that this one lacks are removed."""
    before = _files_of(folder / "report.json")
    (folder / "figures").mkdir(exist_ok=True)
    for table in tables:
        files.write_text(folder / "tables" / f"{table.name}.csv", _csv(table))
    for figure in figures:
        for ending, content in (("png", figure.png), ("svg", figure.svg)):
            with files.atomic_path(folder / "figures" / f"{figure.name}.{ending}") as new:
                new.write_bytes(content)
    files.write_text(folder / "index.html", page(body, tables, figures))
    files.write_json(folder / "report.json", body)
    for stale in before - _files_of(folder / "report.json"):
        (folder / stale).unlink(missing_ok=True)


def _files_of(report: Path) -> set[str]:
    """Tables and figures that a report.json names, relative to its folder."""
    try:
        body = files.read_json(report)
        named = {f"tables/{name}.csv" for name in body["tables"]}
        return named | {figure[ending] for figure in body["figures"].values() for ending in ("png", "svg")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _csv(table: Table) -> str:
    """Raw values, units in the heading."""
    out = io.StringIO()
    keys = ["kind", *(column.key for column in table.used_columns)]
    errors = [column.error_key for column in table.used_columns if column.error_key]
    keys += [key for key in errors if key not in keys and any(row.get(key) is not None for row in table.rows)]
    writer = csv.DictWriter(out, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(without_nan(table.rows))
    return out.getvalue()
