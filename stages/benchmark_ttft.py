"""Time To First Token over real ranks: every architecture of the grid, alternating, with intervals and a breakdown.

    python -m stages.benchmark_ttft benchmark=ttft_demo
    python -m stages.benchmark_ttft benchmark=ttft_cpu link=sweep        speedup against bandwidth (root, Linux)
    python -m stages.benchmark_ttft benchmark=ttft_surface link=surface  speedup over context and link, fitted
    python -m stages.benchmark_ttft scale=paper debug=dry_run            what 8 GPUs would run
    python -m stages.benchmark_ttft benchmark=ttft_engines               TensorRT engines built before, on GPUs

docs/ttft.md explains the protocol and every column.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.benchmark.grid import Models
    from pipeline.config import Config
    from pipeline.experiment.work import Work
    from pipeline.results import TtftResult
    from pipeline.results.ttft import WireErrorRow
    from pipeline.tracking import StageRun

    Grid = dict[int, list[Models]]


def check(work: "list[Work]") -> list[str]:
    from pipeline.benchmark import one_rank, ttft
    from pipeline.benchmark.built import grid as engine_grid
    from pipeline.benchmark.built.ttft import check_gpus
    from pipeline.errors import MissingRequirementError

    config, grid = work[0].config, _grid(work[0].config)
    benchmark = config.benchmark
    try:
        if benchmark.engine != "torch":
            engine_grid.check(benchmark)
            if benchmark.engine == "tensorrt":  # TensorRT-LLM may run elsewhere
                check_gpus(max(grid))
        elif benchmark.protocol == "one_rank":
            one_rank.check(benchmark, config.cluster, grid)
        else:
            ttft.check(benchmark, config.link, config.cluster, grid)
    except MissingRequirementError as error:
        return [str(error)]
    return []


def plan(work: "list[Work]") -> str:
    from pipeline.benchmark.dry_run import dry_run

    config = work[0].config
    on_gpu = config.benchmark.engine != "torch" or config.cluster.device == "cuda"
    return dry_run(config.benchmark, config.link, "cuda" if on_gpu else "cpu", _grid(config))


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.benchmark.kept import Kept

    benchmark, grid = work.config.benchmark, _grid(work.config)
    files.check_writable(work.result.parent, hint="paths.results")
    one_rank = benchmark.protocol == "one_rank" and benchmark.engine == "torch"
    found = (_one_rank if one_rank else _ranks)(work, grid)
    result = work.write(found)
    Kept(work.result, work.key).remove()
    log.log_artifact(result)
    log.log_metrics({one.metric: one.geomean_speedup for one in found.headline.all})
    log.log_metrics({row.metric: row.goodput_per_s for row in found.serving_rows})
    _print(found)
    print(f"wrote {result}")
    if benchmark.surface:
        print(f"wrote {_surface(work, found)}")


def _grid(config: "Config") -> "Grid":
    from pipeline.benchmark.grid import expand, over_wires
    from pipeline.compose import model_config

    return over_wires(expand(config.benchmark, model_config), config.benchmark.wires)


def _ranks(work: "Work", grid: "Grid") -> "TtftResult":
    from pipeline import files
    from pipeline.benchmark import launches, ttft
    from pipeline.benchmark.built import grid as engine_grid
    from pipeline.benchmark.kept import Kept
    from pipeline.benchmark.result import ranks_result

    config, benchmark, scale = work.config, work.config.benchmark, work.config.scale.name
    if benchmark.engine != "torch":
        (engines,) = work.paths("engines")
        return engine_grid.measure_engines(benchmark, config.engine, grid, engines, scale, _say)
    ttft.check(benchmark, config.link, config.cluster, grid)
    folders = {files.plain_name(folder.name): folder for folder in work.paths("timed")}
    kept = Kept(work.result, work.key)
    found = launches.measure_grid(benchmark, config.link, config.cluster, grid, folders, _say, kept)
    traces = work.result.parent / "traces" / work.result.stem
    return ranks_result(*found, benchmark, scale, traces, wire_errors=_wire_errors(work))


def _wire_errors(work: "Work") -> "list[WireErrorRow]":
    """What other wires do to logits and loss: of trained models where these are there, with their validation tokens."""
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline import files
    from pipeline.benchmark.wire_errors import compared_models, measure_wire_errors
    from pipeline.compose import model_config

    benchmark = work.config.benchmark
    models = compared_models(benchmark, model_config)
    if models is None:
        return []
    *trained, tokens = work.paths("compared") or [Path()]

    def read_windows(folders: Sequence[Path], length: int, count: int) -> list[list[int]]:
        from pipeline.data import TokenData
        from pipeline.evaluation.perplexity import check_tokenizer

        data = TokenData.open(tokens)
        for folder in folders:
            check_tokenizer(folder, data)
        step = max(1, (data.val.tokens - length - 1) // count)  # spread over the whole split
        starts = range(0, data.val.tokens - length, step)[:count]
        return [data.val.read(start, length + 1).tolist() for start in starts]

    folders = {files.plain_name(folder.name): folder for folder in trained}
    return measure_wire_errors(benchmark, work.config.cluster, models, folders, read_windows, _say)


def _one_rank(work: "Work", grid: "Grid") -> "TtftResult":
    from pipeline.benchmark import one_rank
    from pipeline.benchmark.result import one_rank_result
    from stages.project_ttft import calibrated

    config = work.config
    one_rank.check(config.benchmark, config.cluster, grid)
    hardware, fit, _ = calibrated(config)
    link = config.hardware.name
    measured = one_rank.measure(config.benchmark, config.cluster, grid, hardware.all_reduce_seconds, link, _say)
    model = hardware.link_model(config.hardware.source, fit.values if fit else {})
    return one_rank_result(measured, config.benchmark, config.scale.name, model)


def _surface(work: "Work", found: "TtftResult") -> "Path":
    """Write the surface beside the rows that it is fitted to. Raises PipelineError with too few of them."""
    from pipeline.compose import model_config
    from pipeline.projection.surface import surface

    path = work.result.with_name(work.result.name.replace("ttft-", "surface-", 1))
    return work.write(surface(found, work.config.benchmark, model_config), path)


def _print(found: "TtftResult") -> None:
    from pipeline.benchmark import text

    parts = [text.ttft_table(found.rows), text.breakdown_table(found.breakdown), text.decode_table(found.decode_rows)]
    parts += [text.serving_table(found.serving_rows), text.wire_table(found.wire_errors)]
    parts.append(text.headline_text(found.headline))
    for part in [*parts, text.verdicts_text(found.verdicts)]:
        if part:
            print("\n" + part)


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
