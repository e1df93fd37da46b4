"""Where things lie: every file and folder that stages read and write, by the name stages call it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.experiment.stages import MODEL, PERPLEXITY, TASKS, models_the_link, runs_built_engines
from pipeline.experiment.variant import variant

if TYPE_CHECKING:
    from pipeline.benchmark.grid import Models


def place(name: str, config: Config) -> list[Path]:
    """The files and folders of a name under this configuration; several, or none, where settings say so."""
    found = PLACES[name](config)
    return [found] if isinstance(found, Path) else found


def model_name(config: Config) -> str:
    """The model's name in folders: with what was overridden of its shape, data and training."""
    return config.model.name + variant(config, *MODEL)


def data(config: Config) -> Path:
    return Path(config.paths.data, config.data.name + variant(config, "data"))


def trained(config: Config) -> Path:
    return Path(config.paths.trained, config.scale.name, model_name(config))


def results(config: Config) -> Path:
    return Path(config.paths.results, config.scale.name)


def engine(config: Config) -> Path:
    groups = MODEL if config.engine.weights == "trained" else ("model",)
    model = config.model.name + variant(config, *groups)
    kind = f"{config.engine.name}{variant(config, 'engine')}"
    return Path(config.paths.engines, f"{model}-tp{config.engine.tp_size}-{kind}")


def perplexity(config: Config) -> Path:
    suffix = variant(config, *(f"evaluation.{field}" for field in PERPLEXITY))
    return results(config) / model_name(config) / f"perplexity{suffix}.json"


def tasks(config: Config) -> Path:
    suffix = variant(config, *(f"evaluation.{field}" for field in TASKS))
    return results(config) / model_name(config) / f"{config.evaluation.name}{suffix}.json"


def timing(config: Config) -> Path:
    entries = ["benchmark", "cluster.device", "cluster.threads_per_rank", "cluster.pin_cores"]
    entries += ["engine"] if runs_built_engines(config) else []
    entries += ["hardware"] if models_the_link(config) else []
    link = config.link.name + variant(config, "link")
    name = config.benchmark.name + variant(config, *entries)
    return results(config) / f"ttft-{name}{'' if link == 'loopback' else f'-{link}'}.json"


def projection(config: Config) -> Path:
    hardware = config.hardware.name + variant(config, "hardware")
    benchmark = config.benchmark.name + variant(config, "benchmark", "reference")
    return results(config) / f"projection-{hardware}-{benchmark}.json"


def baseline(config: Config) -> list[Path]:
    """The task result that evaluation.baseline names: of the same evaluation, and the same overrides."""
    chosen = config.evaluation.baseline
    if chosen is None or chosen == config.model.name:
        return []
    folder = chosen + model_name(config).removeprefix(config.model.name)
    alone = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"baseline": None})})
    found = [results(config) / folder / tasks(one).name for one in (alone, config)]
    return [path for path in found if path.exists()][:1]


def scored(config: Config) -> list[Path]:
    """What tasks are scored with: a trained model, or a public checkpoint's folder."""
    wanted = config.evaluation.checkpoint
    if wanted is None:
        return [trained(config)]
    return [Path(wanted)] if Path(wanted).is_dir() else []


def task_files(config: Config) -> list[Path]:
    """Task data and tasks of one's own."""
    named = (config.evaluation.data_dir, config.evaluation.task_dir)
    return [Path(folder) for folder in named if folder is not None and Path(folder).is_dir()]


def timed(config: Config) -> list[Path]:
    """What a benchmark loads, as far as it is there: built engines, or trained models."""
    if runs_built_engines(config):
        from pipeline.benchmark.built.grid import find

        try:
            found = find(config.benchmark, _grid(config), Path(config.paths.engines))
        except (CheckpointError, ConfigError):  # the stage says what is missing
            return []
        return [folder for folders in found.values() for folder in folders.values()]
    return list(trained_of(config).values()) if config.benchmark.weights == "trained" else []


def trained_of(config: Config) -> dict[str, Path]:
    """Finished models of a benchmark's grid by name; a model that is not there is not in it."""
    found: dict[str, Path] = {}
    for sizes in _grid(config).values():
        for models in sizes:
            for name in map(models.weights_of, models.by_architecture):
                folder = Path(config.paths.trained, config.scale.name, name + variant(config, *MODEL[1:]))
                if folder.is_dir():
                    found[name] = folder
    return found


def _grid(config: Config) -> "dict[int, list[Models]]":
    from pipeline.benchmark.grid import expand
    from pipeline.compose import model_config

    return expand(config.benchmark, model_config)


PLACES: dict[str, Callable[[Config], Path | list[Path]]] = {
    "data": data,
    "manifest": lambda config: data(config) / "manifest.json",
    "trained": trained,
    "training": lambda config: results(config) / model_name(config) / "training.json",
    "curve": lambda config: results(config) / model_name(config) / "curve.csv",
    "perplexity": perplexity,
    "scored": scored,
    "task_files": task_files,
    "baseline": baseline,
    "tasks": tasks,
    "weights": lambda config: trained(config) if config.engine.weights == "trained" else [],
    "engine": engine,
    "engine_description": lambda config: engine(config) / "engine.json",
    "timed": timed,
    "timing": timing,
    "projection": projection,
    "results": results,
    "engines": lambda config: Path(config.paths.engines),
    "report": lambda config: Path(config.paths.report),
    "report_body": lambda config: Path(config.paths.report, "report.json"),
}
