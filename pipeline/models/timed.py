"""Which model stands for a label in a benchmark's grid."""

from collections.abc import Callable

from pipeline.config.benchmark import BASELINE, BenchmarkConfig, Shape, architecture_of
from pipeline.config.model import ModelConfig
from pipeline.config.parsing import parse_group
from pipeline.errors import ConfigError
from pipeline.models.architectures import block_of, names
from pipeline.models.placement import shape_faults

ModelByName = Callable[[str], ModelConfig]


def timed_model(
    benchmark: BenchmarkConfig, shape: Shape, label: str, tp_size: int, model_by_name: ModelByName
) -> ModelConfig:
    """The model of a row, with the layers that are really timed.

    A label that the shape names no model for takes the standard model's shape, with a way a rank where its
    architecture shares out heads and FFN over ways. Raises ConfigError for unknown names and for what cannot be built.
    """
    name = shape.model_name(label, tp_size)
    architecture = architecture_of(label)
    if name is None:
        fields = benchmark.derived.get(label, {})
        if label != architecture and not fields:
            raise ConfigError(
                f"benchmark.shapes {shape.size}: {label} is {architecture} under a name of its own, and nothing says "
                f"how they differ; name its model in models, or its fields in benchmark.derived.{label}"
            )
        standard = timed_model(benchmark, shape, BASELINE, tp_size, model_by_name)
        derived = _derived(standard, label, tp_size, fields)
        return shipped_twin(derived, model_by_name) or derived
    model = model_by_name(name)
    if model.architecture != architecture:
        raise ConfigError(f"benchmark.shapes {shape.size}: {name} is {model.architecture}, not {architecture}")
    return model if shape.n_layer is None else model.model_copy(update={"n_layer": shape.n_layer})


def shipped_twin(model: ModelConfig, model_by_name: ModelByName) -> ModelConfig | None:
    """The config file of this model's name, where it is of the same shape: its recipe is the model's own."""
    try:
        twin = model_by_name(model.name)
    except ConfigError:
        return None
    return twin if twin.identity() == model.identity() else None


def derived_faults(benchmark: BenchmarkConfig) -> list[str]:
    """Fields of benchmark.derived that the row itself determines, a line each: its name would lie otherwise."""
    faults = []
    for label, fields in benchmark.derived.items():
        architecture = architecture_of(label)
        fixed = ["architecture", "name"]
        if architecture in names() and block_of(architecture).ways == "split":
            fixed.append("n_ways")
        faults += [
            f"benchmark.derived.{label}.{field}={fields[field]}: follows from the architecture and the number "
            "of ranks; leave it out"
            for field in fixed
            if field in fields
        ]
    return faults


def _derived(standard: ModelConfig, label: str, tp_size: int, fields: dict[str, object]) -> ModelConfig:
    """The standard model's shape for another label's architecture, named as its config file would be."""
    architecture = architecture_of(label)
    ways = block_of(architecture).ways
    if ways == "own":
        raise ConfigError(f"every way has a width of its own; name its model in benchmark.shapes, beside {BASELINE}")
    named = standard.name.replace(BASELINE, label) if BASELINE in standard.name else f"{standard.name}_{label}"
    placed = {"name": f"{named}_{tp_size}way", "n_ways": tp_size} if ways == "split" else {"name": named}
    raw = {**standard.model_dump(), **fields, "architecture": architecture, **placed}
    model = parse_group("model", raw, f"benchmark.derived.{label}")
    assert isinstance(model, ModelConfig)
    if faults := shape_faults(model):
        raise ConfigError("; ".join(faults))
    return model
