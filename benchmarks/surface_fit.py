"""Fit the surface again to rows that were timed before, without timing anything.

    python -m benchmarks.surface_fit results/demo/ttft-ttft_surface-surface.json

Writes the surface's file beside it, as the benchmark does at its end. The benchmark is the shipped one of the result's
name: rows timed with other models or contexts than it names are refused.
"""

import argparse
from pathlib import Path
from typing import cast

from pipeline import provenance
from pipeline.compose import model_config, shipped
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.models.timed import timed_model
from pipeline.projection.surface import surface
from pipeline.report.surface import surface_table
from pipeline.results import TtftResult, read, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="a ttft-… file of a benchmark with surface: true")
    path = parser.parse_args().rows
    result = read(path, TtftResult)
    benchmark = cast(BenchmarkConfig, shipped("benchmark", result.benchmark))
    models = [
        timed_model(benchmark, benchmark.shapes[0], name, benchmark.tp_sizes[0], model_config)
        for name in benchmark.architectures
    ]
    known = {(model.name, model.n_layer, context) for model in models for context in benchmark.contexts}
    odd = {(row.model, row.n_layer, row.context) for row in result.rows} - known
    if odd or not benchmark.surface or not path.name.startswith("ttft-"):
        raise SystemExit(f"{path}: not the rows of the shipped benchmark {result.benchmark} with surface: true")
    found = surface(result, benchmark, model_config)
    target = path.with_name(path.name.replace("ttft-", "surface-", 1))
    body, name = provenance.fingerprint(found.body()), "/".join(target.parts[-2:])
    write(target, found, {**(result.provenance or {}), "body": body, "file": name, "fitted_again": True})
    table = surface_table(target.stem.removeprefix("surface-"), found, "")
    for note in table.notes if table else ():
        print(note)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
