"""Time To First Token of Table 4's shapes: one rank's share, the collective modelled, size by size."""

from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Answer, Found, Part, Wanted
from benchmarks.gpu.place import Place
from benchmarks.gpu.settings import Settings
from pipeline.benchmark import one_rank
from pipeline.benchmark.grid import expand
from pipeline.benchmark.result import TIME_ONE_RANK, make_result, one_rank_result
from pipeline.benchmark.text import headline_text, ttft_table
from pipeline.errors import MissingRequirementError
from pipeline.projection.hardware import Hardware
from pipeline.results import file as result_file
from pipeline.results.ttft import TtftResult, TtftRow

SCALE = "small_gpu"
SIZES = ("1.3B", "6.7B", "13B", "65B", "175B")
CONTEXTS = (128, 2048)
MODELLED = "measured compute, modelled communication"


def part(tp_size: int) -> Part:
    """The part for one rank of `tp_size`."""
    wanted: list[Wanted] = []
    for size in SIZES:
        for context in CONTEXTS:
            wanted += [Wanted(_standard(size, context), "ms"), Wanted(_speedup(size, context), "share")]

    def read(settings: Settings) -> dict[str, Any]:
        grid = expand(settings.benchmark.model_copy(update={"tp_sizes": [tp_size]}), settings.model)
        models = [one.identity() for models in grid[tp_size] for one in models.by_architecture.values()]
        return {
            "benchmark": settings.benchmark.model_dump(mode="json"),
            "models": models,
            "hardware": {name: one.model_dump(mode="json") for name, one in settings.hardware.items()},
        }

    def run(part: Part, place: Place, settings: Settings, folder: Path) -> Answer:
        return _run(part, tp_size, place, settings, folder)

    code = ("benchmarks/gpu/ttft.py", "pipeline/benchmark/one_rank.py", "pipeline/benchmark/result.py")
    question = f"TTFT of one rank of {tp_size} at Table 4's shapes: Kraken against standard and the neighbours"
    return Part(f"ttft_tp{tp_size}", question, 5, tuple(wanted), code, read, run)


def _run(part: Part, tp_size: int, place: Place, settings: Settings, folder: Path) -> Answer:
    hardware = settings.hardware_of(place.name)
    benchmark = settings.benchmark.model_copy(update={"tp_sizes": [tp_size]})
    rows: list[TtftRow] = []
    device = Hardware.from_config(hardware)
    link_model = device.link_model(hardware.source, {})
    notes = [f"collectives: the link model of conf/hardware/{hardware.name}.yaml, fitted to no times"]
    verified = ""
    for shape in benchmark.shapes:
        path = folder / f"{shape.size}.json"
        if not path.is_file():
            one = benchmark.model_copy(update={"shapes": [shape]})
            grid = expand(one, settings.model)
            try:
                one_rank.check(one, settings.cluster, grid)
            except MissingRequirementError as error:
                notes.append(f"{shape.size} left out: {error}")
                continue
            measured = one_rank.measure(one, settings.cluster, grid, device.all_reduce_seconds, hardware.name, _say)
            result_file.write(path, one_rank_result(measured, one, SCALE, link_model), {})
        done = result_file.read(path, TtftResult)
        rows += done.rows
        verified = done.verified
    if not rows:
        return "no shape fits this device: " + "; ".join(notes[1:])
    result = make_result(benchmark, SCALE, rows, verified, TIME_ONE_RANK, link_model=link_model)
    print(f"{ttft_table(rows)}\n{headline_text(result.headline)}", flush=True)
    return Found(_figures(part, rows), notes, {"ttft": result})


def _figures(part: Part, rows: list[TtftRow]) -> list[Any]:
    figures = []
    announced = {one.name for one in part.wanted}
    for row in rows:
        if row.kind != MODELLED:
            continue
        name = {"standard": _standard, "kraken": _speedup}.get(row.architecture)
        value = row.ttft_ms_median if row.architecture == "standard" else row.speedup
        if name is not None and value is not None and name(row.size, row.context) in announced:
            figures.append(part.figure(name(row.size, row.context), value).model_copy(update={"kind": MODELLED}))
    return figures


def _standard(size: str, context: int) -> str:
    return f"{size}, T={context}: standard"


def _speedup(size: str, context: int) -> str:
    return f"{size}, T={context}: Kraken's speedup"


def _say(line: str) -> None:
    print(line, flush=True)
