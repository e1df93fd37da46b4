"""An experiment as a list of work: every stage for every model, and which of it is already done."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.compose import compose, compose_raw, group_options
from pipeline.config import Config, nearest
from pipeline.errors import ConfigError
from pipeline.experiment.stages import BY_NAME, STAGES, Stage


@dataclass(frozen=True)
class Work:
    """One stage, for one model or for the experiment as a whole."""

    stage: Stage
    config: Config

    @property
    def name(self) -> str:
        return f"{self.stage.name} {self.config.model.name}" if self.stage.scope == "model" else self.stage.name

    def is_done(self) -> bool:
        """Whether the result is there and was made by this very configuration from these very inputs."""
        result = self.stage.result(self.config)
        missing = [path for path in self.stage.paths(self.stage.outputs, self.config) if not path.exists()]
        if missing:
            return False
        try:
            made_by = files.read_json(result)["provenance"]
            key = (made_by["config_fingerprint"], made_by["inputs"])
        except (json.JSONDecodeError, KeyError, TypeError):
            return False
        return bool(key == (self.stage.fingerprint(self.config), self.stage.input_marks(self.config)))


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

    def work(self) -> Iterator[Work]:
        """Everything to do, in order: a stage for all models before the next stage."""
        for stage in self.stages:
            chosen = self.configs if stage.scope == "model" else self.configs[:1]
            for config in chosen:
                yield Work(stage, self._adapted(stage, config))

    def _adapted(self, stage: Stage, config: Config) -> Config:
        """The configuration with the stage's own choice of groups, where the user made none."""
        named = {override.partition("=")[0] for override in self.overrides}
        own = [override for override in stage.overrides if override.partition("=")[0] not in named]
        return compose([f"model={config.model.name}", *own, *self.overrides]) if own else config


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
    scale, experiment = raw["scale"]["name"], raw["experiment"]
    names = experiment["models"].get(scale)
    if not names:
        known = ", ".join(experiment["models"])
        raise ConfigError(f"scale={scale}: experiment {experiment['name']} runs at {known} only")
    if any(override.startswith("model=") for override in overrides):
        raise ConfigError(
            f"model=: an experiment names its models ({', '.join(names)}); "
            f"for others set 'experiment.models.{scale}=[…]'"
        )
    configs = tuple(_compose_for(name, overrides, experiment["name"], scale) for name in names)
    return Experiment(configs, _stages(configs[0]), tuple(overrides))


def _compose_for(name: str, overrides: list[str], experiment: str, scale: str) -> Config:
    if name not in group_options("model"):
        near = nearest(name, group_options("model"))
        raise ConfigError(
            f"experiment.models.{scale}: no model {name} in conf/model" + (f"; did you mean {near}?" if near else "")
        )
    return compose([f"model={name}", *overrides])


def _stages(config: Config) -> tuple[Stage, ...]:
    assert config.experiment is not None
    names = config.experiment.stages or [stage.name for stage in STAGES]
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise ConfigError(f"experiment.stages={unknown}: no such stage; there are: {', '.join(BY_NAME)}")
    return tuple(stage for stage in STAGES if stage.name in names)


def result_of(stage: str, config: Config) -> Path:
    """Where a stage writes its result file."""
    return BY_NAME[stage].result(config)
