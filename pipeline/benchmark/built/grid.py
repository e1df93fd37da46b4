"""A benchmark's grid over engines built beforehand: finds their folders, checks them, times cell after cell."""

from collections.abc import Mapping
from pathlib import Path

from pipeline import files
from pipeline.benchmark.built.ttft import VERIFIED, check_gpus, time_engines, time_tensorrt_llm
from pipeline.benchmark.grid import Models, cells
from pipeline.benchmark.progress import Progress, Say
from pipeline.benchmark.result import make_result
from pipeline.benchmark.ttft import rules_of
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.engine import EngineConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.export import folder as engine_folder
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt_llm.checkpoint import CLASSES
from pipeline.results.ttft import TtftResult, TtftRow

Folders = dict[str, Path]  # architecture -> engine folder


def check(benchmark: BenchmarkConfig) -> None:
    """Raises ConfigError where a benchmark asks of an engine what it cannot do, all faults at once."""
    faults = []
    if benchmark.protocol != "ranks":
        faults.append(f"benchmark.protocol={benchmark.protocol}: only ranks, with benchmark.engine={benchmark.engine}")
    if benchmark.decode_tokens:
        faults.append(
            f"benchmark.decode_tokens={benchmark.decode_tokens}: engines give the first token only; 0 would be"
        )
    if faults:
        raise ConfigError("this benchmark cannot be run:\n" + "\n".join(f"  - {fault}" for fault in faults))


def measure_engines(
    benchmark: BenchmarkConfig,
    engine: EngineConfig,
    grid: Mapping[int, list[Models]],
    root: Path,
    scale: str,
    say: Say,
) -> TtftResult:
    """The benchmark's result; `root` is the folder of all engines.

    Raises ConfigError and MissingRequirementError before any work, CheckpointError with every engine that is missing
    or of another shape, RunError where a rank dies.
    """
    check(benchmark)
    if benchmark.engine == "tensorrt":
        check_gpus(max(grid))
    found = find(benchmark, grid, root)
    where = [(cell.context, cell.batch_size) for cell in cells(benchmark)]
    rows: list[TtftRow] = []
    progress = Progress(say, len(found))
    for (_, size), folders in found.items():
        rules = rules_of(benchmark)
        if benchmark.engine == "tensorrt":
            rows += time_engines(folders, where, rules, size, benchmark.cuda_graph, benchmark.rank_timeout_s)
        else:
            rows += time_tensorrt_llm(folders, engine, where, rules, size)
        progress.finished(f"{size}: {len(where)} prompts, {', '.join(folders)}")
    return make_result(benchmark, scale, rows, VERIFIED)


def find(benchmark: BenchmarkConfig, grid: Mapping[int, list[Models]], root: Path) -> dict[tuple[int, str], Folders]:
    """Folders by number of ranks and size; raises CheckpointError with every engine that is not there as asked.

    Engines built with overridden settings lie beside the others: the first that fits is taken.
    """
    found: dict[tuple[int, str], Folders] = {}
    faults: list[str] = []
    for tp_size, sizes in grid.items():
        for models in sizes:
            folders = found.setdefault((tp_size, models.size), {})
            for architecture, model in models.by_architecture.items():
                if benchmark.engine == "tensorrt_llm" and model.architecture not in CLASSES:
                    continue
                plain = root / f"{model.name}-tp{tp_size}-{benchmark.engine}"
                why = ""
                for folder in files.variants(plain) or [plain]:
                    try:
                        _check(folder, benchmark, models, architecture)
                    except (CheckpointError, ConfigError) as error:
                        why = why or str(error)
                    else:
                        folders[architecture] = folder
                        break
                else:
                    faults.append(f"{why}\n    {_command(benchmark, models, architecture)}")
    if faults:
        raise CheckpointError("these engines are not there as asked:\n" + "\n".join(f"  - {one}" for one in faults))
    return found


def _check(folder: Path, benchmark: BenchmarkConfig, models: Models, architecture: str) -> None:
    """Raises where the engine is missing, of another shape, or does not take the benchmark's prompts."""
    engine_folder.read(folder)
    spec, model = EngineSpec.read(folder / SPEC), models.by_architecture[architecture]
    ours, theirs = model.identity(), spec.model.identity()
    keys = sorted({*ours, *theirs})
    odd = [f"{key}={theirs.get(key)}, not {ours.get(key)}" for key in keys if ours.get(key) != theirs.get(key)]
    if spec.dtype != benchmark.dtype:
        odd.append(f"dtype={spec.dtype}, not {benchmark.dtype}")
    longest, largest = max(benchmark.contexts), max(benchmark.batch_sizes)
    if longest > spec.max_input_len:
        odd.append(f"max_input_len={spec.max_input_len}, not {longest}")
    if largest > spec.max_batch_size:
        odd.append(f"max_batch_size={spec.max_batch_size}, not {largest}")
    if odd:
        raise CheckpointError(f"{folder} has {'; '.join(odd)}")


def _command(benchmark: BenchmarkConfig, models: Models, architecture: str) -> str:
    """What builds the engine."""
    model = models.by_architecture[architecture]
    words = ["python -m stages.build_engine", *models.overrides(architecture), f"engine={benchmark.engine}"]
    words += [f"engine.tp_size={models.tp_size} engine.dtype={benchmark.dtype} engine.weights={benchmark.weights}"]
    words += [f"model.n_layer={model.n_layer} engine.max_input_len={max(benchmark.contexts)}"]
    if benchmark.engine == "tensorrt":
        words.append("engine.module=tensorrt engine.mode=segmented")
    return " ".join(words)
