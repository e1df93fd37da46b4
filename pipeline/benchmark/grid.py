"""The grid of a benchmark: which models meet at which context, batch and number of ranks."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import ModelConfig
from pipeline.config.benchmark import BenchmarkConfig, Shape
from pipeline.errors import ConfigError
from pipeline.models import Placement, local_shape

ModelByName = Callable[[str], ModelConfig]


@dataclass(frozen=True)
class Models:
    """The architectures of one size, cut for `tp_size` ranks: what a launch holds in memory at a time."""

    size: str
    tp_size: int
    by_architecture: dict[str, ModelConfig]

    @property
    def n_layer(self) -> int:
        return next(iter(self.by_architecture.values())).n_layer


@dataclass(frozen=True)
class Cell:
    """One prompt: B sequences of T tokens."""

    context: int
    batch_size: int


def expand(benchmark: BenchmarkConfig, model_by_name: ModelByName) -> dict[int, list[Models]]:
    """Models by number of ranks; raises ConfigError with every shape that cannot be run."""
    grid: dict[int, list[Models]] = {}
    faults: list[str] = []
    for tp_size in benchmark.tp_sizes:
        grid[tp_size] = [_models(benchmark, shape, tp_size, model_by_name, faults) for shape in benchmark.shapes]
    if faults:
        unique = list(dict.fromkeys(faults))
        raise ConfigError("this benchmark cannot be run:\n" + "\n".join(f"  - {fault}" for fault in unique))
    return grid


def cells(benchmark: BenchmarkConfig) -> list[Cell]:
    return [Cell(context, batch) for context in benchmark.contexts for batch in benchmark.batch_sizes]


def decode_cells(benchmark: BenchmarkConfig) -> list[Cell]:
    """Where decoding starts from; none where no token is decoded."""
    if not benchmark.decode_tokens:
        return []
    contexts = benchmark.decode_contexts or benchmark.contexts
    return [Cell(context, batch) for context in contexts for batch in benchmark.batch_sizes]


def _models(
    benchmark: BenchmarkConfig, shape: Shape, tp_size: int, model_by_name: ModelByName, faults: list[str]
) -> Models:
    chosen: dict[str, ModelConfig] = {}
    for architecture, template in shape.models.items():
        name = template.format(tp_size=tp_size)
        try:
            model = model_by_name(name)
            if shape.n_layer is not None:
                model = model.model_copy(update={"n_layer": shape.n_layer})
            local_shape(model, Placement(0, tp_size))
        except ConfigError as error:
            faults.append(f"benchmark.tp_sizes={tp_size}, {shape.size} {architecture}: {error}")
            continue
        if model.architecture != architecture:
            faults.append(f"benchmark.shapes {shape.size}: {name} is {model.architecture}, not {architecture}")
        faults += _context_faults(benchmark, model)
        chosen[architecture] = model
    if "standard" not in shape.models:
        faults.append(f"benchmark.shapes {shape.size}: no standard model; every speedup is measured against it")
    return Models(shape.size, tp_size, chosen)


def _context_faults(benchmark: BenchmarkConfig, model: ModelConfig) -> list[str]:
    too_long = [
        f"benchmark.contexts={cell.context}: {model.name} reads at most {model.block_size} tokens; "
        f"{model.block_size} or fewer would be right"
        for cell in cells(benchmark)
        if cell.context > model.block_size
    ]
    too_many = [
        f"benchmark.decode_tokens={benchmark.decode_tokens}: {cell.context} + {benchmark.decode_tokens} tokens "
        f"are more than the {model.block_size} that {model.name} reads"
        for cell in decode_cells(benchmark)
        if cell.context + benchmark.decode_tokens > model.block_size
    ]
    return too_long + too_many
