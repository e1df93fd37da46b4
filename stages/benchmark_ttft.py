"""Time To First Token over real ranks: every architecture of the grid, alternating, with intervals and a breakdown.

    python -m stages.benchmark_ttft benchmark=ttft_demo
    python -m stages.benchmark_ttft benchmark=ttft_cpu link=sweep        speedup against bandwidth (root, Linux)
    python -m stages.benchmark_ttft benchmark=ttft_paper debug=dry_run   what 8 GPUs would run
    python -m stages.benchmark_ttft benchmark=ttft_engines               TensorRT engines built before, on GPUs

docs/ttft.md explains the protocol and every column.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch

if TYPE_CHECKING:
    from pipeline.benchmark.grid import Models
    from pipeline.results import TtftResult

    Grid = dict[int, list[Models]]


def run(config: Config, log: StageRun) -> None:
    from pipeline import files
    from pipeline.benchmark.dry_run import dry_run
    from pipeline.benchmark.grid import expand
    from pipeline.compose import model_config
    from pipeline.provenance import write_result

    stage, benchmark = BY_NAME["benchmark_ttft"], config.benchmark
    grid = expand(benchmark, model_config)
    if config.debug.dry_run:
        on_gpu = benchmark.dtype != "float32" or config.cluster.device == "cuda"
        print(dry_run(benchmark, config.link, "cuda" if on_gpu else "cpu", grid))
        return
    result = stage.result(config)
    files.check_writable(result.parent, hint="paths.results")
    one_rank = benchmark.protocol == "one_rank" and benchmark.engine == "torch"
    found = (_one_rank if one_rank else _ranks)(config, grid, result)
    write_result(result, found.body(), stage.fingerprint(config))
    log.log_artifact(result)
    log.log_metrics({f"{one.architecture}_geomean_speedup": one.geomean_speedup for one in found.headline.all})
    _print(found, result)


def _ranks(config: Config, grid: "Grid", result: Path) -> "TtftResult":
    from pipeline.benchmark import ttft
    from pipeline.benchmark.built import grid as engine_grid
    from pipeline.benchmark.result import ranks_result

    benchmark, scale = config.benchmark, config.scale.name
    if benchmark.engine != "torch":
        return engine_grid.measure_engines(benchmark, config.engine, grid, Path(config.paths.engines), scale, _say)
    ttft.check(benchmark, config.link, config.cluster, grid)
    folders = _trained(config) if benchmark.weights == "trained" else {}
    measured, decoded = ttft.measure_grid(benchmark, config.link, config.cluster, grid, folders, _say)
    return ranks_result(measured, decoded, benchmark, scale, result.parent / "traces" / result.stem)


def _one_rank(config: Config, grid: "Grid", result: Path) -> "TtftResult":
    from pipeline.benchmark import one_rank
    from pipeline.benchmark.result import one_rank_result
    from pipeline.projection.hardware import Hardware

    benchmark, hardware = config.benchmark, Hardware.from_config(config.hardware)
    one_rank.check(benchmark, config.cluster, grid)
    link = config.hardware.name
    measured = one_rank.measure(benchmark, config.cluster, grid, hardware.all_reduce_seconds, link, _say)
    return one_rank_result(measured, benchmark, config.scale.name, config.hardware.model_dump(mode="json"))


def _print(found: "TtftResult", result: Path) -> None:
    from pipeline.benchmark.table import breakdown_table, decode_table, headline_text, ttft_table

    parts = [ttft_table(found.rows), breakdown_table(found.breakdown), decode_table(found.decode_rows)]
    for text in [*parts, headline_text(found.headline)]:
        if text:
            print("\n" + text)
    print(f"wrote {result}")


def _trained(config: Config) -> dict[str, Path]:
    """Finished models of this scale by name."""
    root = Path(config.paths.trained, config.scale.name)
    return {path.parent.name: path.parent for path in sorted(root.glob("*/model.safetensors"))}


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or "", plans_itself=True))
