"""Time To First Token over real ranks: every architecture of the grid, alternating, with intervals and a breakdown.

    python -m stages.benchmark_ttft benchmark=ttft_demo
    python -m stages.benchmark_ttft benchmark=ttft_cpu link=sweep        speedup against bandwidth (root, Linux)
    python -m stages.benchmark_ttft benchmark=ttft_paper debug=dry_run   what 8 GPUs would run

docs/ttft.md explains the protocol and every column.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch


def run(config: Config, log: StageRun) -> None:
    from pipeline import files
    from pipeline.benchmark import ttft
    from pipeline.benchmark.grid import expand
    from pipeline.benchmark.result import make_body
    from pipeline.benchmark.table import breakdown_table, decode_table, ttft_table
    from pipeline.compose import model_config
    from pipeline.provenance import write_result

    stage, benchmark = BY_NAME["benchmark_ttft"], config.benchmark
    grid = expand(benchmark, model_config)
    result = stage.result(config)
    files.check_writable(result.parent, hint="paths.results")
    folders = _trained(config) if benchmark.weights == "trained" else {}
    ttft.check(benchmark, config.link, config.cluster, grid)
    measured, decoded = ttft.measure_grid(benchmark, config.link, config.cluster, grid, folders, _say)
    body = make_body(measured, decoded, benchmark, result.parent, result.stem) | {"scale": config.scale.name}
    write_result(result, body, stage.fingerprint(config))

    log.log_metrics(
        {f"{name}_geomean_speedup": one["geomean_speedup"] for name, one in body["headline"]["all"].items()}
    )
    for path in [result, *map(Path, body["figures"])]:
        log.log_artifact(path)
    print("\n" + ttft_table(body["rows"]))
    if benchmark.breakdown:
        print("\n" + breakdown_table(body["breakdown"]))
    if body["decode_rows"]:
        print("\n" + decode_table(body["decode_rows"]))
    print()
    for path in [str(result), *body["figures"]]:
        print(f"wrote {path}")


def _trained(config: Config) -> dict[str, Path]:
    """Finished models of this scale by name."""
    root = Path(config.paths.trained, config.scale.name)
    return {path.parent.name: path.parent for path in sorted(root.glob("*/model.safetensors"))}


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
