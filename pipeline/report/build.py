"""From result files to the report: which tables and figures there are, the headline, what is missing."""

import csv
import io
from pathlib import Path
from typing import Any

from pipeline import files, provenance
from pipeline.config import Config
from pipeline.config.reference import ReferenceConfig
from pipeline.report import (
    line_figures,
    quality,
    quality_figures,
    same_tokens,
    same_tokens_figures,
    serving,
    speed,
    speed_figures,
    superglue,
    surface,
    time_figures,
)
from pipeline.report.inputs import Inputs, read_inputs
from pipeline.report.page import page
from pipeline.report.projection import PAPER_TABLES, paper_table, projection_table
from pipeline.report.style import Figure
from pipeline.report.table import Table
from pipeline.report.timed import Timed, all_means, headline, speedups_table

DEMO = (
    "Demo scale: measured rows come from tiny models on documentation text, on the machine of this run. They show that "
    "everything works and say nothing about quality or speed at the paper's scale."
)


def write_report(config: Config, fingerprint: str) -> dict[str, Any]:
    """Read the scale's results, write report.json, tables, figures and the page; returns report.json's body.

    Raises PipelineError where there are no result files, OutputError where the folder cannot be written.
    """
    folder, reference = Path(config.paths.report), config.reference
    order = config.experiment.models.get(config.scale.name, []) if config.experiment else []
    inputs = read_inputs(Path(config.paths.results), Path(config.paths.engines), config.scale.name, order)
    files.check_writable(folder)
    tables = make_tables(inputs, reference)
    figures = make_figures(inputs, reference, tables)
    body: dict[str, Any] = {
        "scale": config.scale.name,
        "title": f"{config.scale.name} scale: {config.experiment.title if config.experiment else 'results'}",
        "demo": DEMO if inputs.demo else "",
        "headline": headline(all_means(_timed(inputs), reference)),
        "studies": [same_tokens.section(inputs, study) for study in inputs.studies.values()],
        "tables": {table.name: table.as_dict() for table in tables},
        "figures": {figure.name: figure.as_dict() for figure in figures},
        "missing": missing(inputs),
        "faults": inputs.faults,
        "sources": inputs.sources,
        "reference": reference.source,
        "provenance": provenance.describe(fingerprint),
    }
    _write(folder, body, tables, figures)
    return body


def _timed(inputs: Inputs) -> list[Timed]:
    """Projections, then benchmarks."""
    projected = [Timed(inputs, name, result) for name, result in inputs.projections.items()]
    return [*projected, *(Timed(inputs, name, result) for name, result in inputs.ttft.items())]


def make_tables(inputs: Inputs, reference: ReferenceConfig) -> list[Table]:
    """Every table that the results fill, studies and quality first."""
    candidates: list[Table | None] = [
        *(table for study in inputs.studies.values() for table in same_tokens.tables(inputs, study)),
        quality.models_table(inputs),
        quality.training_table(inputs),
        quality.perplexity_table(inputs, reference),
        *superglue.task_tables(inputs, reference),
        speedups_table(all_means(_timed(inputs), reference), inputs.demo),
        *(speed.ttft_table(inputs, name) for name in inputs.ttft),
        *(speed.decode_table(inputs, name) for name in inputs.ttft),
        *(serving.winners_table(inputs, name) for name in inputs.ttft),
        *(serving.serving_table(inputs, name) for name in inputs.ttft),
        *(serving.wire_table(inputs, name) for name in inputs.ttft),
        *(surface.surface_table(name, fitted, inputs.demo) for name, fitted in inputs.surfaces.items()),
        *(paper_table(inputs, tp_size, reference) for tp_size in PAPER_TABLES),
        *(projection_table(inputs, name) for name in inputs.projections),
        speed.engines_table(inputs),
    ]
    return [table for table in candidates if table is not None]


def make_figures(inputs: Inputs, reference: ReferenceConfig, tables: list[Table]) -> list[Figure]:
    """Every figure that the results fill."""
    timed = _timed(inputs)
    scored = [table for table in tables if table.name in inputs.tasks and table.name.startswith("superglue")]
    found: list[Figure | None] = [
        *(figure for study in inputs.studies.values() for figure in same_tokens_figures.figures(inputs, study)),
        quality_figures.training_curves(inputs),
        quality_figures.perplexity_points(inputs),
        *(quality_figures.superglue_bars(inputs, table) for table in scored),
    ]
    draw = (
        speed_figures.ttft_bars,
        time_figures.breakdown_bars,
        time_figures.timeline,
        line_figures.against_tp,
        line_figures.against_link,
        line_figures.link_sweep,
    )
    for one in sorted(timed, key=lambda one: one.is_projected):
        found += [figure(one) for figure in draw]
        found.append(speed_figures.scatter(one, reference))
    found += [surface.surface_figure(name, fitted, inputs.demo) for name, fitted in inputs.surfaces.items()]
    if timed:
        papers = next((one for one in timed if one.is_papers(reference)), None)
        found.append(speed_figures.published_speedups(reference, papers))
    return [figure for figure in found if figure is not None]


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
    errors += [key for column in table.used_columns if column.interval for key in column.interval_keys]
    keys += [key for key in errors if key not in keys and any(row.get(key) is not None for row in table.rows)]
    writer = csv.DictWriter(out, keys, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    return out.getvalue()
