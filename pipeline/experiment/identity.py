"""What determines a result, among all settings; and which settings determine none, with the reason."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from pipeline.config import Config
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config.benchmark import BenchmarkConfig

# fields (or whole groups) that no fingerprint holds: they say where and how something ran, or stand elsewhere
EXECUTION = {
    "scale": "names the folder of results; what it chooses stands in the groups themselves",
    "experiment": "which models and stages are run, each on its own settings",
    "tasks": "short for evaluation.tasks, which counts",
    "tracking": "where runs are logged",
    "paths": "where files lie; what is read there counts by its content",
    "debug": "how much is done and shown",
    "cluster.name": "its fields count where they matter",
    "cluster.num_workers": "the global batch is the same over any number of workers",
    "cluster.tp_size": "ranks of one model compute what one process computes",
    "cluster.fsdp": "the same steps, their state spread over the workers",
    "cluster.keep_checkpoints": "how much a kill can lose",
    "cluster.milestone_interval": "what is kept on the way",
    "cluster.collective_timeout_minutes": "when a run counts as failed",
    "cluster.cpus_per_worker": "the same steps on more or fewer cores",
    "cluster.ray_address": "the same steps on another cluster",
    "cluster.ray_dashboard": "shows, computes nothing",
    "cluster.max_failures": "a run resumes from its own checkpoints",
    "cluster.micro_batch_size": "the global batch is the same however it is accumulated",
    "cluster.evaluation_batch_size": "scores do not depend on what is scored beside them",
    "cluster.evaluation_tp_size": "logits over ranks equal one process's",
    "cluster.compile": "the same arithmetic, fused",
    "cluster.checkpoint_interval": "how much a kill can lose",
    "cluster.checkpoint_minutes": "how much a kill can lose",
    "cluster.log_interval": "how often is reported",
    "cluster.data_workers": "the same tokens from more processes",
    "model.name": "names folders; the shape counts",
    "model.recipe": "how the paper trained; what is done here stands in training",
    "data.tokenizer_dir": "GPT-2's files are checked to be the same everywhere",
}
OPEN_GROUPS = ("scale", "experiment", "tasks", "tracking", "paths", "debug", "cluster")  # any stage may read them


class UndeclaredSettingError(Exception):
    """A stage reads a setting that its fingerprint does not hold: a fault of the program, not of its user."""


def is_execution(field: str) -> bool:
    """Whether no fingerprint holds a dotted field."""
    return any(field == entry or field.startswith(f"{entry}.") for entry in EXECUTION)


def values(config: Config, entries: Iterable[str]) -> dict[str, Any]:
    """The values of identity groups and of single fields of them ("group.field"), as plain JSON data."""
    found: dict[str, Any] = {}
    for entry in entries:
        group, _, field = entry.partition(".")
        value = getattr(config, group)
        if value is None:
            raise ConfigError(none_chosen(group))
        body = value.identity()
        found[entry] = body[field] if field else body
    return found


def restricted(config: Config, entries: Iterable[str], reader: str) -> Config:
    """`config`, whose identity settings other than `entries` raise UndeclaredSettingError when `reader` reads one."""
    chosen: dict[str, set[str]] = {}
    for entry in entries:
        group, _, field = entry.partition(".")
        chosen.setdefault(group, set()).add(field)
    groups = {
        name: _Restricted(reader, name, getattr(config, name), chosen.get(name, set()))
        for name in Config.model_fields
        if name not in OPEN_GROUPS and "" not in chosen.get(name, set())
    }
    return config.model_copy(update=groups)


class _Restricted:
    """A group of which only some fields may be read."""

    def __init__(self, reader: str, name: str, group: object, fields: set[str]) -> None:
        self._reader, self._name, self._group, self._fields = reader, name, group, fields

    def __getattr__(self, field: str) -> Any:
        if field not in self._fields and not is_execution(f"{self._name}.{field}"):
            raise UndeclaredSettingError(
                f"{self._reader} reads {self._name}.{field}, which its settings in pipeline/experiment/stages.py lack"
            )
        return getattr(self._group, field)


def none_chosen(group: str) -> str:
    from pipeline.compose import experiments_with

    return f"{group}: none is chosen; +experiment=NAME brings one: {', '.join(experiments_with(group))}"


def arm_values(config: Config) -> dict[str, Any]:
    """The models of a study's arms at every size; raises ConfigError where one cannot be."""
    from pipeline.compose import model_config
    from pipeline.study.arms import models

    if config.study is None:
        raise ConfigError(none_chosen("study"))
    found = models(config.study, config.sweep, model_config)
    shapes = {f"{arm} {size}": model.identity() for (arm, size), model in found.items()}
    for shape in shapes.values():
        del shape["init_std"]  # the search's to choose
    return {"models": shapes}


def timed_values(config: Config) -> dict[str, Any]:
    """The shapes of every model that the benchmark names or derives; raises ConfigError where one cannot be."""
    if config.benchmark.protocol == "one_rank":  # its link is the projection's
        return projected_values(config)
    return {"models": _models(config.benchmark)} | _compared_values(config)


def _compared_values(config: Config) -> dict[str, Any]:
    """The shapes of the models that wires are compared on, where any are."""
    from pipeline.benchmark.wire_errors import compared_models
    from pipeline.compose import model_config

    models = compared_models(config.benchmark, model_config)
    if models is None:
        return {}
    return {"compared models": {label: model.identity() for label, model in models.by_architecture.items()}}


def projected_values(config: Config) -> dict[str, Any]:
    """The same, and on the paper's machine the files that the fit to its published times reads."""
    return {"models": _models(config.benchmark)} | _fitted_values(config)


def weighed_values(config: Config) -> dict[str, Any]:
    """The arms, and what a projection of them reads besides."""
    return arm_values(config) | _fitted_values(config)


def _fitted_values(config: Config) -> dict[str, Any]:
    """Shapes and files behind the fit to published times, on the paper's machine."""
    found: dict[str, Any] = {}
    reference = config.reference
    if config.hardware.name == reference.ttft_hardware:
        from pipeline.compose import shipped

        benchmark = cast("BenchmarkConfig", shipped("benchmark", reference.ttft_benchmark))
        hardware = shipped("hardware", reference.ttft_hardware)
        found |= {"fit": [benchmark.identity(), hardware.identity()], "fitted models": _models(benchmark)}
    return found


def _models(benchmark: "BenchmarkConfig") -> dict[str, Any]:
    from pipeline.benchmark.grid import expand
    from pipeline.compose import model_config

    return {
        f"{models.size} {architecture} tp{tp_size}": model.identity()
        for tp_size, sizes in expand(benchmark, model_config).items()
        for models in sizes
        for architecture, model in models.by_architecture.items()
    }
