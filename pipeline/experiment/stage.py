"""One step of an experiment: what identifies its work, what it reads and writes, and what its script says of it."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pipeline.config import Config


@dataclass(frozen=True)
class Stage:
    """One step of an experiment; `python -m stages.<name>` runs it alone.

    `inputs` and `outputs` are names of places (pipeline/experiment/places.py). The first output is the JSON file that
    carries what identifies the work, by which finished work is recognised.

    The script's `run(work, log)` does the work. It may define besides:
    `check(work) -> list[str]`: what this machine lacks for a list of this stage's work, a line each; raises
    PipelineError for settings that no machine can run.
    `notes(work) -> list[str]`: what to bear in mind when the results of this work are compared, a line each.
    `plan(work) -> str`: what a dry run shows of it.
    `outdated(work) -> str | None`: why an output that was made as it should be is of no use on this machine.
    `finish()`: called when an experiment's last work of this stage is done.
    """

    name: str
    title: str
    scope: Literal["experiment", "model"]  # once per experiment, or once per model of it
    settings: tuple[str, ...]  # identity groups, or single fields "group.field", that determine the result
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    always: bool = False  # cheap, or looks for itself what has changed: never passed over
    on_request: bool = False  # only in experiments that name it, and not in dvc.yaml: hours of trials, kept one by one
    optional: bool = False  # left out, with the reason, where the machine lacks something for it
    also: Mapping[str, Callable[[Config], bool]] = field(default_factory=dict)  # settings that count where this holds
    resolve: Callable[[Config], dict[str, Any]] | None = None  # values that the settings only name
    takes: Mapping[str, str] = field(default_factory=dict)  # groups that an experiment does not choose for this stage

    @property
    def module(self) -> str:
        return f"stages.{self.name}"

    @cached_property
    def script(self) -> Any:
        """The stage's module; imported when it is first asked for."""
        return importlib.import_module(self.module)

    def declared(self, config: Config) -> tuple[str, ...]:
        """The settings that determine the result of this configuration."""
        return (*self.settings, *(entry for entry, holds in self.also.items() if holds(config)))
