"""One piece of work: a stage with the settings it runs on. What a stage script is handed."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import files, provenance
from pipeline.config import Config
from pipeline.errors import CheckpointError, ConfigError, RunError
from pipeline.experiment import closure
from pipeline.experiment.identity import restricted, values
from pipeline.experiment.places import owner, place, timed_models
from pipeline.experiment.stage import Stage
from pipeline.experiment.stages import BY_NAME, STAGES
from pipeline.results import Result
from pipeline.results.file import write as write_result

ARCHITECTURES = "pipeline.models.architectures"
RESULTS = ("search", "quality")  # places of results that a later stage goes on from
DESCRIBED = {"trained": "config.json", "engine": "engine.json"}  # outputs that are folders, and what describes them


class State(NamedTuple):
    """Whether work is done, and if it is stale, why."""

    name: str  # done, missing or stale
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why else self.name


@dataclass(frozen=True)
class Work:
    """One stage, for one model or for the experiment as a whole."""

    stage: Stage
    composed: Config  # every setting; a stage script reads `config`
    model_overrides: tuple[str, ...] = ()  # what composes the model, where its name alone does not

    @property
    def name(self) -> str:
        return f"{self.stage.name} {self.composed.model.name}" if self.stage.scope == "model" else self.stage.name

    @property
    def command(self) -> str:
        """What runs this work alone, but for its overrides."""
        model = self.model_overrides or (f"model={self.composed.model.name}",)
        return " ".join(["python -m", self.stage.module, *(model if self.stage.scope == "model" else ())])

    @cached_property
    def config(self) -> Config:
        """The settings that this stage declares, and those that determine no result; others raise when read."""
        return restricted(self.composed, self.stage.declared(self.composed), self.stage.name)

    def path(self, name: str) -> Path:
        """The one file or folder of a place's name."""
        (path,) = place(name, self.composed)
        return path

    def paths(self, *names: str) -> list[Path]:
        return [path for name in names for path in place(name, self.composed)]

    @property
    def result(self) -> Path:
        """The JSON file that says what made it."""
        return self.path(self.stage.outputs[0])

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything configured that determines the result, resolved."""
        declared = values(self.composed, self.stage.declared(self.composed))
        return declared | (self.stage.resolve(self.composed) if self.stage.resolve else {})

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits that name the settings."""
        return provenance.fingerprint(self.settings)

    @cached_property
    def code(self) -> dict[str, str]:
        """Digests of the rooms whose code makes the result."""
        return self.code_of(self.stage.module)

    def code_of(self, module: str, architectures: Collection[str] | None = None) -> dict[str, str]:
        """Digests of the rooms that one module of the pipeline uses for this work, or for these architectures of it."""
        chosen = self._architectures() if architectures is None else architectures
        modules = [module, *(f"{ARCHITECTURES}.{name}" for name in chosen)]
        starts = [path for name in modules if (path := closure.module_file(name))]
        return closure.digests(closure.closure(starts))

    def _architectures(self) -> set[str]:
        """The architectures whose own files the work runs: a new one beside them changes nothing."""
        models = [self.settings["model"]] if "model" in self.settings else []
        models += [model for key in ("models", "fitted models") for model in self.settings.get(key, {}).values()]
        return {model["architecture"] for model in models}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """What each input holds, as it was when first asked: before the work."""
        return self._marks()

    def _marks(self) -> dict[str, str]:
        return {str(path): provenance.content_mark(path) for path in self.paths(*self.stage.inputs)}

    def state(self) -> State:
        """Whether the result is there and was made by these very settings and this code from these very inputs."""
        if any(not path.exists() for path in self.paths(*self.stage.outputs)):
            return State("missing")
        return self.result_state()

    def result_state(self) -> State:
        """The same of the result alone: another output may be missing."""
        if not self.result.exists():
            return State("missing")
        try:
            body = files.read_json(self.result)
            made_by = body.pop("provenance")
            settings, code, inputs, stated = (made_by[key] for key in ("settings", "code", "inputs", "body"))
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError):
            return State("stale", f"{self.result} does not say what made it")
        why = [
            f"{what} {', '.join(changed)}"
            for what, was, now in (
                ("settings changed:", settings, self._setting_marks),
                ("code changed in", code, self.code),
                ("input changed:", inputs, self._marks()),
            )
            if (changed := sorted(key for key in {*was, *now} if was.get(key) != now.get(key)))
        ]
        if stated != provenance.fingerprint(body):
            why.append(f"output damaged: {self.result} was changed by hand")
        why += self._damage()
        return State("stale", "; ".join(why)) if why else State("done")

    def _damage(self) -> list[str]:
        """What is wrong with the folders that were written, or with keeping them on this machine."""
        folders = [(self.path(name), DESCRIBED[name]) for name in self.stage.outputs if name in DESCRIBED]
        found = [f"output damaged: {fault}" for one in folders if (fault := provenance.damage(*one))]
        outdated = getattr(self.stage.script, "outdated", None)
        return found or ([fault] if outdated and (fault := outdated(self)) else [])

    def is_done(self) -> bool:
        return self.state().name == "done"

    @cached_property
    def _setting_marks(self) -> dict[str, str]:
        return {name: provenance.fingerprint(value)[:8] for name, value in self.settings.items()}

    def begin(self) -> None:
        """Note commit and inputs as they are; raises ConfigError where one was made with other settings than these."""
        provenance.git_commit()  # kept: the result names the commit that it began with
        self._require_models()
        self._require_results()
        for path in self.inputs:
            self._require_settings(Path(path))

    def _require_settings(self, path: Path) -> None:
        """Raise ConfigError where an input says that it was made with other settings than its maker has here."""
        maker, made_with = self._maker(path), _settings_of(path)
        if maker and made_with not in (None, maker.fingerprint):
            raise ConfigError(
                f"{path} was made with other settings (fingerprint {made_with}, not {maker.fingerprint}): "
                f"{maker.command} with the same overrides makes it anew"
            )

    def _require_models(self) -> None:
        """Raise CheckpointError where a benchmark of trained weights lacks a model: nothing else would notice."""
        if "timed" not in self.stage.inputs:
            return
        lacking = [
            f"{folder} is missing: run {maker.command} with the same overrides first"
            for folder in self.paths("timed")
            if not folder.exists() and (maker := self._maker(folder))
        ]
        if lacking:
            raise CheckpointError("these models are not trained:\n" + "\n".join(f"  - {one}" for one in lacking))

    def _require_results(self) -> None:
        """Raise ConfigError where a result that this work goes on from is missing, or not as its maker wrote it."""
        for path in self.paths(*(name for name in self.stage.inputs if name in RESULTS)):
            maker = self._maker(path)
            again = f"run {maker.command if maker else 'its stage'} with the same overrides first"
            if not path.exists():
                raise ConfigError(f"{path} is missing: {again}")
            try:
                body = files.read_json(path)
                stated = body.pop("provenance")["body"]
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(f"{path} does not say what made it: {again}") from None
            if stated != provenance.fingerprint(body):
                raise ConfigError(f"{path} was changed by hand: {again}")

    def _maker(self, path: Path) -> "Work | None":
        """The work of another stage that writes `path`."""
        return next((work for work in makers(self.composed) if path in work.paths(*work.stage.outputs)), None)

    @property
    def key(self) -> str:
        """Names what would be done: settings, code and inputs."""
        return provenance.fingerprint(self.fingerprint, self.code, self.inputs)

    def check_code(self, doing: str) -> None:
        """Raise RunError where the code is another than it was when first asked, before the work."""
        now = self.code_of(self.stage.module)
        changed = sorted(room for room in {*self.code, *now} if self.code.get(room) != now.get(room))
        if changed:
            raise RunError(
                f"the code changed while {doing}, in {', '.join(changed)}: what is measured now would not be what was "
                "measured before; run it again"
            )

    def device_flops(self) -> dict[str, float]:
        """Peak rates of known devices, for a share of them: shown beside a result, no part of it."""
        from pipeline.compose import device_flops

        return device_flops()

    def provenance(self, **more: Any) -> dict[str, Any]:
        """The provenance block of what this work makes."""
        return provenance.describe(self.fingerprint, self.inputs, self.code, settings=self._setting_marks, **more)

    def write(self, result: Result | dict[str, Any], path: Path | None = None, **more: Any) -> Path:
        """Write the result file, or one at `path` beside it, with its provenance, to which `more` adds; returns it."""
        path = path or self.result
        body = result.body() if isinstance(result, Result) else json.loads(json.dumps(result))
        name = "/".join(path.parts[-2:])  # a moved or renamed result is known by it
        made_by = self.provenance(body=provenance.fingerprint(body), file=name, **more)
        if isinstance(result, Result):
            write_result(path, result, made_by)
        else:
            files.write_json(path, {**body, "provenance": made_by})
        return path


def makers(config: Config) -> Iterator[Work]:
    """Every stage's work under one configuration, and the training of every model that its benchmark loads."""
    stages = [stage for stage in STAGES if config.study is not None or not stage.on_request]
    yield from (Work(stage, owner(config) if stage.name == "train" else config) for stage in stages)
    yield from (Work(BY_NAME["train"], one.config, tuple(one.overrides)) for one in timed_models(config))


def _settings_of(folder: Path) -> str | None:
    """The fingerprint of the settings that tokens, a model, an engine or a result say they were made with."""
    described = [folder / name for name in ("manifest.json", "config.json", "engine.json")]
    for path in described if folder.is_dir() else [folder]:
        try:
            return str(files.read_json(path)["provenance"]["config_fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
