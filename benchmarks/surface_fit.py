"""Fit the surface again to rows that were timed before, without timing anything.

    python -m benchmarks.surface_fit results/demo/ttft-ttft_surface-surface.json

Writes the surface's file beside it, as the benchmark does at its end. Whatever was overridden, the rows say what was
timed: contexts, links, ranks, batch, labels, and each model by its name, with its layers. What a model of that name is
like they do not say: that is conf/model's, or what conf/benchmark derives, as these files are now.
"""

import argparse
from pathlib import Path
from typing import cast

from pipeline import provenance
from pipeline.compose import group_options, model_config, shipped
from pipeline.config.benchmark import BASELINE, WIRES, BenchmarkConfig, Shape
from pipeline.errors import ResultError
from pipeline.experiment.run import guarded
from pipeline.models.timed import timed_model
from pipeline.projection import fitted_rows
from pipeline.projection.surface import surface
from pipeline.report.surface import surface_table
from pipeline.results import BOUND, TtftResult, read, write
from pipeline.results.ttft import TtftRow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="a ttft-… file of ranks that met over links")
    path = parser.parse_args().rows
    return guarded(lambda: print(f"wrote {fit_again(path)}"))


def fit_again(path: Path) -> Path:
    """Write the surface of the rows in `path` beside it. Raises PipelineError where they are none to fit."""
    if not path.name.startswith("ttft-"):
        raise ResultError(f"{path}: must be a file of rows, ttft-….json")
    result = read(path, TtftResult)
    if not result.rows:
        raise ResultError(f"{path}: has no rows")
    rows = _rows(result)
    benchmark = benchmark_of(result, rows)
    fitted_rows.check({(row.context, str(row.link)) for row in rows}, {row.architecture for row in rows})
    found = surface(result, benchmark, model_config)
    target = path.with_name(path.name.replace("ttft-", "surface-", 1))
    body, name = provenance.fingerprint(found.body()), "/".join(target.parts[-2:])
    write(target, found, {**(result.provenance or {}), "body": body, "file": name, "fitted_again": True})
    table = surface_table(target.stem.removeprefix("surface-"), found, "")
    for note in table.notes if table else ():
        print(note)
    named = {row.architecture: row.model for row in rows if row.architecture in benchmark.architectures}
    print("As conf has them now, which the rows cannot say: " + ", ".join(f"{k} {v}" for k, v in named.items()))
    return target


def _rows(result: TtftResult) -> list[TtftRow]:
    """Those of the first row's size, batch and number of ranks."""
    first = result.rows[0]
    cells = {(row.size, row.batch_size, row.tp_size) for row in result.rows}
    if len(cells) > 1:
        print(f"Of several sizes, batches and ranks the first: {first.size}, {first.batch_size}, {first.tp_size}")
    return [
        row
        for row in result.rows
        if (row.size, row.batch_size, row.tp_size) == (first.size, first.batch_size, first.tp_size)
    ]


def benchmark_of(result: TtftResult, rows: list[TtftRow]) -> BenchmarkConfig:
    """The shipped benchmark with what the rows say; raises ResultError where they are of models that conf lacks."""
    labels = {row.architecture: row for row in rows if row.architecture != BOUND and row.wire == WIRES[0]}
    if BASELINE not in labels or any(row.kind != "measured" for row in rows):
        raise ResultError(f"rows of {result.benchmark}: must be measured by ranks that met, {BASELINE} among them")
    baseline = labels[BASELINE]
    named = {label: row.model for label, row in labels.items() if row.model in group_options("model")}
    if BASELINE not in named:
        raise ResultError(f"{BASELINE} was timed as {baseline.model}, and conf/model has no such file")
    shape = Shape(size=baseline.size, models=named, n_layer=baseline.n_layer)
    benchmark = cast(BenchmarkConfig, shipped("benchmark", result.benchmark)).model_copy(
        update={
            "architectures": list(labels),
            "shapes": [shape],
            "tp_sizes": [baseline.tp_size],
            "batch_sizes": [baseline.batch_size],
            "contexts": sorted({row.context for row in rows}),
            "dtype": baseline.dtype,
        }
    )
    for label, row in labels.items():
        model = timed_model(benchmark, shape, label, baseline.tp_size, model_config)
        if (model.name, model.n_layer) != (row.model, row.n_layer):
            raise ResultError(
                f"{label} was timed as {row.model} with {row.n_layer} layers, and conf has no such model: its "
                f"{label} would be {model.name} with {model.n_layer}"
            )
    return benchmark


if __name__ == "__main__":
    raise SystemExit(main())
