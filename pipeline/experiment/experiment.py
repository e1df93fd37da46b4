"""An experiment: every stage for every model, from a command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.compose import compose, compose_raw, group_options, shipped
from pipeline.config import Config, ExperimentConfig, nearest
from pipeline.config.parsing import parse_group
from pipeline.errors import ConfigError
from pipeline.experiment.identity import values
from pipeline.experiment.stage import Stage
from pipeline.experiment.stages import BY_NAME, STAGES
from pipeline.experiment.work import Work
from pipeline.provenance import fingerprint


@dataclass(frozen=True)
class Experiment:
    """The configurations of an experiment's models, the baseline first."""

    configs: tuple[Config, ...]
    stages: tuple[Stage, ...]
    overrides: tuple[str, ...] = ()

    @property
    def config(self) -> Config:
        """The configuration of work that belongs to no single model."""
        return self.configs[0]

    @property
    def key(self) -> str:
        """Names what is run, whatever the models: the same key goes on in the same parent run."""
        groups = ("data", "training", "study", "sweep", "evaluation", "engine", "benchmark", "link", "hardware")
        return fingerprint(values(self.config, (group for group in groups if getattr(self.config, group) is not None)))

    def work(self) -> Iterator[Work]:
        """Everything to do, in order: a stage for all models before the next stage."""
        for stage in self.stages:
            yield from self.work_of(stage)

    def work_of(self, stage: Stage) -> list[Work]:
        chosen = self.configs if stage.scope == "model" else self.configs[:1]
        return [Work(stage, self._adapted(stage, config)) for config in chosen]

    def _adapted(self, stage: Stage, config: Config) -> Config:
        """The configuration with the files that a stage takes whatever an experiment sets, unless the user chose."""
        if config.experiment is None:
            return config
        chosen = {override.partition("=")[0] for override in self.overrides}
        taken: dict[str, Any] = {
            group: shipped(group, name) for group, name in stage.takes.items() if group not in chosen
        }
        return config.model_copy(update=taken)


def load(overrides: list[str]) -> Experiment:
    """Compose and check an experiment from a command line; raises ConfigError with every fault."""
    if not any(override.startswith("+experiment=") for override in overrides):
        named = next((override for override in overrides if override.startswith("experiment=")), None)
        if named:
            raise ConfigError(f"{named}: write +{named} (an experiment is added to the defaults)")
        raise ConfigError(
            "no experiment named; add +experiment=NAME, one of: " + ", ".join(group_options("experiment"))
        )
    raw = compose_raw(overrides)
    scale = raw["scale"]["name"]
    experiment = parse_group("experiment", raw["experiment"], "this experiment cannot be run")
    assert isinstance(experiment, ExperimentConfig)
    names = experiment.models.get(scale)
    if not names:
        known = ", ".join(experiment.models)
        raise ConfigError(f"scale={scale}: experiment {experiment.name} runs at {known} only")
    if any(override.startswith("model=") for override in overrides):
        raise ConfigError(
            f"model=: an experiment names its models ({', '.join(names)}); "
            f"for others set 'experiment.models.{scale}=[…]'"
        )
    configs = tuple(_compose_for(name, overrides, scale) for name in names)
    return Experiment(configs, _stages(configs[0]), tuple(overrides))


def _compose_for(name: str, overrides: list[str], scale: str) -> Config:
    if name not in group_options("model"):
        near = nearest(name, group_options("model"))
        raise ConfigError(
            f"experiment.models.{scale}: no model {name} in conf/model" + (f"; did you mean {near}?" if near else "")
        )
    return compose([f"model={name}", *overrides])


def _stages(config: Config) -> tuple[Stage, ...]:
    assert config.experiment is not None
    names = config.experiment.stages or [stage.name for stage in STAGES if not stage.on_request]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ConfigError(f"experiment.stages={unknown}: no such stage; there are: {', '.join(BY_NAME)}")
    return tuple(stage for stage in STAGES if stage.name in names)
