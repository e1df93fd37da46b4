"""The grid of a benchmark: which models meet at which context, batch and number of ranks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.config import ModelConfig
from pipeline.config.benchmark import BASELINE, BenchmarkConfig, Shape, architecture_of, wired
from pipeline.errors import ConfigError
from pipeline.models.architectures import block_of, names
from pipeline.models.build import check_part
from pipeline.models.timed import ModelByName, derived_faults, shipped_twin, timed_model


@dataclass(frozen=True)
class Models:
    """The models of one size by label, cut for `tp_size` ranks: what a launch holds in memory at a time."""

    size: str
    tp_size: int
    by_architecture: dict[str, ModelConfig]  # by label: several models may be of one architecture
    configured: frozenset[str]  # labels whose model is a config file; the others' are derived from the standard

    @property
    def n_layer(self) -> int:
        return next(iter(self.by_architecture.values())).n_layer

    def weights_of(self, architecture: str) -> str:
        """Name of the model whose trained weights an architecture runs: a schedule of another runs that one's."""
        owner = block_of(self.by_architecture[architecture].architecture).weights_of
        return self.by_architecture[owner if owner in self.by_architecture else architecture].name

    def overrides(self, architecture: str) -> list[str]:
        """What composes an architecture's model, but for the number of layers, as a stage takes it."""
        model = self.by_architecture[architecture]
        if architecture in self.configured:
            return [f"model={model.name}"]
        standard = self.by_architecture[BASELINE].model_dump()
        changed = {key: value for key, value in model.model_dump().items() if value != standard[key]}
        return [f"model={standard['name']}", *(f"model.{key}={value}" for key, value in changed.items())]


@dataclass(frozen=True)
class Cell:
    """One prompt: B sequences of T tokens. Or, B being 1, such prompts from several clients at a time."""

    context: int
    batch_size: int
    concurrency: int = 0  # clients; 0: a forward alone


def expand(benchmark: BenchmarkConfig, model_by_name: ModelByName) -> dict[int, list[Models]]:
    """Models by number of ranks; raises ConfigError with every shape that cannot be run."""
    grid: dict[int, list[Models]] = {}
    stated = [*_unknown(benchmark), *derived_faults(benchmark)]
    faults = {fault: fault for fault in stated}  # the line by what is wrong: one, wherever it is met
    for tp_size in benchmark.tp_sizes:
        grid[tp_size] = [_models(benchmark, shape, tp_size, model_by_name, faults) for shape in benchmark.shapes]
    if faults:
        raise ConfigError("this benchmark cannot be run:\n" + "\n".join(f"  - {line}" for line in faults.values()))
    return grid


def over_wires(grid: dict[int, list[Models]], wires: Sequence[str]) -> dict[int, list[Models]]:
    """The grid with a label for every model and wire; labels that differ by their wire alone have one model."""

    def labelled(models: Models) -> Models:
        chosen = {wired(label, wire): model for wire in wires for label, model in models.by_architecture.items()}
        configured = frozenset(wired(label, wire) for wire in wires for label in models.configured)
        return replace(models, by_architecture=chosen, configured=configured)

    return {tp_size: [labelled(models) for models in sizes] for tp_size, sizes in grid.items()}


def weights_model(model: ModelConfig) -> ModelConfig:
    """The model whose weights this one runs: itself, unless its architecture is a schedule of another."""
    owner = block_of(model.architecture).weights_of
    if owner is None:
        return model
    return model.model_copy(update={"name": model.name.replace(model.architecture, owner), "architecture": owner})


def cells(benchmark: BenchmarkConfig, link: str | None = None) -> list[Cell]:
    """All prompts, or those that are timed over a link."""
    return [Cell(context, batch) for context in _contexts(benchmark, link) for batch in benchmark.batch_sizes]


def _contexts(benchmark: BenchmarkConfig, link: str | None) -> list[int]:
    return benchmark.contexts if link is None else benchmark.contexts_by_link.get(link, benchmark.contexts)


def decode_cells(benchmark: BenchmarkConfig) -> list[Cell]:
    """Where decoding alone starts from; none where no token is decoded, or only while serving."""
    if not benchmark.decode_tokens or benchmark.concurrencies:
        return []
    contexts = benchmark.decode_contexts or benchmark.contexts
    return [Cell(context, batch) for context in contexts for batch in benchmark.batch_sizes]


def serving_cells(benchmark: BenchmarkConfig, link: str | None = None) -> list[Cell]:
    """Where clients are served, over any link or over one."""
    return [Cell(context, 1, clients) for context in _contexts(benchmark, link) for clients in benchmark.concurrencies]


def most_tokens(benchmark: BenchmarkConfig) -> int:
    """That a request may ask for behind its first: draws are 1 … this, decode_tokens on average."""
    return 2 * benchmark.decode_tokens - 1


def _models(
    benchmark: BenchmarkConfig, shape: Shape, tp_size: int, model_by_name: ModelByName, faults: dict[str, str]
) -> Models:
    chosen: dict[str, ModelConfig] = {}
    for label in benchmark.architectures:
        try:
            model = timed_model(benchmark, shape, label, tp_size, model_by_name)
            check_part(model, tp_size)
        except ConfigError as error:
            where = f"benchmark.tp_sizes={tp_size}, {shape.size} {label}"
            faults.setdefault(str(error), f"{where}: {error}")
            continue
        faults |= {fault: fault for fault in _context_faults(benchmark, model)}
        chosen[label] = model
    twins = {name for name, model in chosen.items() if shipped_twin(model, model_by_name)}
    return Models(shape.size, tp_size, chosen, frozenset({*shape.models, *twins}))


def _unknown(benchmark: BenchmarkConfig) -> list[str]:
    """Architectures that something is said of and that are none; those of `architectures` are met when built."""
    named = [(f"benchmark.shapes {shape.size}: models", name) for shape in benchmark.shapes for name in shape.models]
    named += [("benchmark.derived", name) for name in benchmark.derived]
    return [f"{where}: {name} is no architecture" for where, name in named if architecture_of(name) not in names()]


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
    served = [
        f"benchmark.decode_tokens={benchmark.decode_tokens}: {cell.context} + at most {most_tokens(benchmark)} tokens "
        f"of a request are more than the {model.block_size} that {model.name} reads"
        for cell in serving_cells(benchmark)
        if cell.context + most_tokens(benchmark) > model.block_size
    ]
    return too_long + too_many + served
