"""Where things lie: every file and folder that stages read and write, by the name stages call it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config import Config, ModelConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.experiment.identity import none_chosen
from pipeline.experiment.stages import (
    GRID,
    MODEL,
    PERPLEXITY,
    STUDY,
    TASKS,
    models_the_link,
    passes_links,
    runs_built_engines,
    runs_tensorrt_llm,
)
from pipeline.experiment.variant import variant

if TYPE_CHECKING:
    from pipeline.benchmark.grid import Models


STUDY_SETTINGS = tuple(entry for entry in STUDY if entry != "study")
SHOWN = ("reference.superglue_3shot", "reference.superglue_rows")  # beside the scores of tasks


def place(name: str, config: Config) -> list[Path]:
    """The files and folders of a name under this configuration; several, or none, where settings say so."""
    found = PLACES[name](config)
    return [found] if isinstance(found, Path) else found


def model_name(config: Config) -> str:
    """The model's name in folders: with what was overridden of its shape, data and training."""
    return config.model.name + variant(config, MODEL[:1], MODEL[1:])


def data(config: Config) -> Path:
    return Path(config.paths.data, config.data.name + variant(config, ["data"]))


def trained(config: Config) -> Path:
    return Path(config.paths.trained, config.scale.name, model_name(owner(config)))


def owner(config: Config) -> Config:
    """The configuration of the model whose weights this one runs: itself, unless it is a schedule of another."""
    from pipeline.benchmark.grid import weights_model

    return config.model_copy(update={"model": weights_model(config.model)})


def branched(config: Config) -> list[Path]:
    """The checkpoint that training branches from, a run's newest where a run is named; the stage says if it lacks."""
    named = config.training.branch_from
    if named is None:
        return []
    newest = sorted(Path(named).glob(f"checkpoints/step-{'[0-9]' * 9}"))[-1:]
    return [one for one in newest or [Path(named)] if one.is_dir()]


def results(config: Config) -> Path:
    return Path(config.paths.results, config.scale.name)


def engine(config: Config) -> Path:
    weights = MODEL[1:] if config.engine.weights == "trained" else ()
    model = config.model.name + variant(config, MODEL[:1], weights)
    kind = f"{config.engine.name}{variant(config, ['engine'])}"
    return Path(config.paths.engines, f"{model}-tp{config.engine.tp_size}-{kind}")


def perplexity(config: Config) -> Path:
    suffix = variant(config, unspelled=[f"evaluation.{field}" for field in PERPLEXITY])
    return results(config) / model_name(config) / f"perplexity{suffix}.json"


def tasks(config: Config) -> Path:
    suffix = variant(config, [f"evaluation.{field}" for field in TASKS], SHOWN)
    return results(config) / model_name(config) / f"{config.evaluation.name}{suffix}.json"


def timing(config: Config) -> Path:
    entries = ["cluster.device", "cluster.threads_per_rank", "cluster.pin_cores"]
    entries += ["engine.environment", "engine.environment_path"] if runs_tensorrt_llm(config) else []
    entries += ["hardware", "reference"] if models_the_link(config) else []
    entries += MODEL[1:] if times_trained_models(config) else []
    link = config.link.name + variant(config, ["link"]) if passes_links(config) else "loopback"
    name = config.benchmark.name + variant(config, ["benchmark"], entries)
    return results(config) / f"ttft-{name}{'' if link == 'loopback' else f'-{link}'}.json"


def surface(config: Config) -> list[Path]:
    """What is fitted to a benchmark's rows, beside them; none where none is asked for."""
    rows = timing(config)
    return [rows.with_name(rows.name.replace("ttft-", "surface-", 1))] if config.benchmark.surface else []


def projection(config: Config) -> Path:
    hardware = config.hardware.name + variant(config, ["hardware"])
    benchmark = config.benchmark.name + variant(config, GRID, ["reference"])
    return results(config) / f"projection-{hardware}-{benchmark}.json"


def study(config: Config) -> Path:
    """The folder of a study's results."""
    if config.study is None:
        raise ConfigError(none_chosen("study"))
    return results(config) / f"{config.study.name}{variant(config, ['study'], STUDY_SETTINGS)}"


def trade(config: Config) -> Path:
    entries = ["benchmark", "hardware", "reference", "cluster.device", "cluster.threads_per_rank", "cluster.pin_cores"]
    link = config.link.name + variant(config, ["link"])
    suffix = variant(config, (), entries)
    return study(config) / f"trade{suffix}{'' if link == 'loopback' else f'-{link}'}.json"


def baseline(config: Config) -> list[Path]:
    """The task result that evaluation.baseline names: of the same evaluation, and the same overrides."""
    from pipeline.compose import group_options

    chosen = config.evaluation.baseline
    if chosen is None or chosen == config.model.name:
        return []
    suffix = variant(config, MODEL[:1] if config.model.name in group_options("model") else (), MODEL[1:])
    folder = chosen + suffix
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
    """What a benchmark loads: built engines, as far as they are there, or trained models."""
    if runs_built_engines(config):
        from pipeline.benchmark.built.grid import find

        try:
            found = find(config.benchmark, _grid(config), Path(config.paths.engines))
        except (CheckpointError, ConfigError):  # the stage says what is missing
            return []
        return [folder for folders in found.values() for folder in folders.values()]
    return [trained(model.config) for model in timed_models(config)]


def compared(config: Config) -> list[Path]:
    """What a benchmark compares wires on: the trained models that are there, and then the tokens they were made of."""
    from pipeline.benchmark.wire_errors import compared_models
    from pipeline.compose import model_config

    if runs_built_engines(config) or models_the_link(config):
        return []
    try:
        models = compared_models(config.benchmark, model_config)
    except ConfigError:  # the benchmark's own check says what is wrong
        return []
    shapes = models.by_architecture.values() if models else []
    folders = dict.fromkeys(trained(owner(_trains(config, model))) for model in shapes)
    there = [folder for folder in folders if (folder / "config.json").is_file()]
    return [*there, data(config)] if there and data(config).is_dir() else []


class TimedModel(NamedTuple):
    """A model whose trained weights a benchmark runs."""

    config: Config  # of its training
    overrides: list[str]  # which compose the model


def timed_models(config: Config) -> list[TimedModel]:
    """Those of the benchmark's grid, whether they are trained or not; none where random weights are timed."""
    if not times_trained_models(config):
        return []
    try:
        grid = _grid(config)
    except ConfigError:  # the benchmark's own check says what is wrong
        return []
    found: dict[Path, TimedModel] = {}
    for models in (models for sizes in grid.values() for models in sizes):
        for architecture in models.by_architecture:
            if models.weights_of(architecture) == models.by_architecture[architecture].name:
                one = TimedModel(_trains(config, models.by_architecture[architecture]), models.overrides(architecture))
                found.setdefault(trained(one.config), one)
    return list(found.values())


def times_trained_models(config: Config) -> bool:
    built = runs_built_engines(config) or models_the_link(config)
    return config.benchmark.weights == "trained" and not built


def _trains(config: Config, model: ModelConfig) -> Config:
    """The configuration that trains another model with the same overrides: what followed the recipe follows its own."""
    ours, theirs = config.model.recipe.model_dump(), model.recipe.model_dump()
    given = config.training.model_dump()
    changes = {key: theirs[key] for key in theirs if key in given and given[key] == ours[key]}
    return config.model_copy(update={"model": model, "training": config.training.model_copy(update=changes)})


def _grid(config: Config) -> "dict[int, list[Models]]":
    from pipeline.benchmark.grid import expand
    from pipeline.compose import model_config

    return expand(config.benchmark, model_config)


PLACES: dict[str, Callable[[Config], Path | list[Path]]] = {
    "data": data,
    "manifest": lambda config: data(config) / "manifest.json",
    "branched": branched,
    "search": lambda config: study(config) / "search.json",
    "quality": lambda config: study(config) / "quality.json",
    "trade": trade,
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
    "compared": compared,
    "timing": timing,
    "surface": surface,
    "projection": projection,
    "results": results,
    "engines": lambda config: Path(config.paths.engines),
    "report": lambda config: Path(config.paths.report),
    "report_body": lambda config: Path(config.paths.report, "report.json"),
}
