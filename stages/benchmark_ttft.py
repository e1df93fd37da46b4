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
    from pipeline.tracking import StageRun

    Grid = dict[int, list[Models]]


def check(work: "list[Work]") -> list[str]:
    from pipeline.benchmark import one_rank, ttft, wire_errors
    from pipeline.benchmark.built import grid as engine_grid
    from pipeline.benchmark.built.ttft import check_gpus
    from pipeline.errors import MissingRequirementError

    config, grid = work[0].config, _grid(work[0].config)
    benchmark, compared = config.benchmark, _compared(config)
    try:
        if benchmark.surface:
            _check_surface(config)
        if benchmark.engine != "torch":
            engine_grid.check(benchmark)
            if benchmark.engine == "tensorrt":  # TensorRT-LLM may run elsewhere
                check_gpus(max(grid))
        elif benchmark.protocol == "one_rank":
            one_rank.check(benchmark, config.cluster, grid)
        else:
            ttft.check(benchmark, config.link, config.cluster, grid)
        if compared:
            wire_errors.check(benchmark, config.cluster, compared)
    except MissingRequirementError as error:
        return [str(error)]
    return []


def plan(work: "list[Work]") -> str:
    from pipeline.benchmark.dry_run import dry_run

    config = work[0].config
    on_gpu = config.benchmark.engine != "torch" or config.cluster.device == "cuda"
    return dry_run(config.benchmark, config.link, "cuda" if on_gpu else "cpu", _grid(config), _compared(config))


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.benchmark.kept import Kept
    from pipeline.results import TtftResult, read

    benchmark, grid = work.config.benchmark, _grid(work.config)
    files.check_writable(work.result.parent, hint="paths.results")
    if benchmark.surface and work.result_state().name == "done":  # only its surface is missing
        print(f"wrote {_surface(work, read(work.result, TtftResult))}, fitted to {work.result}, which was timed before")
        return
    one_rank = benchmark.protocol == "one_rank" and benchmark.engine == "torch"
    in_use = f"{work.result}: another process measures it; wait for it, or choose another folder with paths.results="
    with files.locked(work.result.with_name(f".{work.result.stem}.lock"), 0, in_use, removes=True):
        work.check_code("it was yet to begin")
        found = (_one_rank if one_rank else _ranks)(work, grid)
        work.check_code("it was measured")
        for path in work.paths("surface"):  # of what was timed before
            path.unlink(missing_ok=True)
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


def _compared(config: "Config") -> "Models | None":
    from pipeline.benchmark.wire_errors import compared_models
    from pipeline.compose import model_config

    return compared_models(config.benchmark, model_config)


def _ranks(work: "Work", grid: "Grid") -> "TtftResult":
    from pipeline import files
    from pipeline.benchmark import launches, ttft, wire_errors
    from pipeline.benchmark.built import grid as engine_grid
    from pipeline.benchmark.kept import Kept
    from pipeline.benchmark.result import ranks_result

    config, benchmark, scale = work.config, work.config.benchmark, work.config.scale.name
    if benchmark.engine != "torch":
        (engines,) = work.paths("engines")
        return engine_grid.measure_engines(benchmark, config.engine, grid, engines, scale, _say)
    if benchmark.surface:
        _check_surface(config)
    ttft.check(benchmark, config.link, config.cluster, grid)
    compared = _compared(config)
    if compared:
        wire_errors.check(benchmark, config.cluster, compared)
    trained, validation = _trained(work, compared) if compared else ({}, [])  # read before hours of timing
    folders = {files.plain_name(folder.name): folder for folder in work.paths("timed")}
    kept = Kept(work.result, work.key, lambda: work.check_code("a launch was measured"))
    found = launches.measure_grid(benchmark, config.link, config.cluster, grid, folders, _say, kept)
    traces = work.result.parent / "traces" / work.result.stem
    lost = (
        wire_errors.measure_wire_errors(benchmark, config.cluster, compared, trained, validation, _say)
        if compared
        else []
    )
    return ranks_result(*found, benchmark, scale, traces, wire_errors=lost)


def _trained(work: "Work", models: "Models") -> "tuple[dict[str, Path], list[list[int]]]":
    """Folders by name of the compared models that are trained here, and windows of their validation tokens."""
    from pathlib import Path

    from pipeline import files
    from pipeline.benchmark.wire_errors import spread, window_length
    from pipeline.data import TokenData
    from pipeline.evaluation.perplexity import check_tokenizer

    *folders, tokens = work.paths("compared") or [Path()]
    if not folders:
        return {}, []
    data = TokenData.open(tokens)
    for folder in folders:
        check_tokenizer(folder, data)
    length, starts = spread(data.val.tokens, window_length(models))
    windows = [data.val.read(start, length + 1).tolist() for start in starts]
    return {files.plain_name(folder.name): folder for folder in folders}, windows


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

    return work.write(surface(found, work.config.benchmark, model_config), work.path("surface"))


def _check_surface(config: "Config") -> None:
    """Raise MissingRequirementError or ConfigError where the benchmark will not time what its surface needs."""
    from pipeline.benchmark.grid import cells
    from pipeline.benchmark.ttft import resources
    from pipeline.errors import MissingRequirementError
    from pipeline.projection import fitted_rows
    from pipeline.results import BOUND

    benchmark, tp_size = config.benchmark, config.benchmark.tp_sizes[0]
    if resources(config.cluster, tp_size).oversubscribed:
        raise MissingRequirementError(
            f"benchmark.surface=true: {tp_size} ranks have too few cores here, and a surface is fitted only to rows of "
            "ranks that do not take turns; lower benchmark.tp_sizes, or set benchmark.surface=false"
        )
    fitted_rows.check(
        {(cell.context, link) for link in config.link.links for cell in cells(benchmark, link)},
        [*benchmark.architectures, *([BOUND] if benchmark.no_communication_bound else [])],
    )


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
