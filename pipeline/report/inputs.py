"""Result files, read and nothing more. What cannot be read is named, never made up."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import PipelineError

Body = dict[str, Any]


@dataclass
class Inputs:
    """Bodies of the result files of one scale, by model where they belong to one."""

    scale: str
    training: dict[str, Body] = field(default_factory=dict)
    perplexity: dict[str, Body] = field(default_factory=dict)
    tasks: dict[str, dict[str, Body]] = field(default_factory=dict)  # evaluation name -> model -> body
    ttft: dict[str, Body] = field(default_factory=dict)  # benchmark name -> body
    projections: dict[str, Body] = field(default_factory=dict)  # file name without ending -> body
    engines: dict[str, Body] = field(default_factory=dict)  # folder name -> body
    faults: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        return list(
            dict.fromkeys([*self.training, *self.perplexity, *(m for group in self.tasks.values() for m in group)])
        )

    def compare_tasks(self, compare: Callable[[Body, Body], Body]) -> None:
        """Give every SuperGLUE result without a `baseline` the comparison with the first model's."""
        for name, bodies in self.tasks.items():
            if not name.startswith("superglue"):
                continue
            first, *others = bodies.values()
            for body in others:
                if not body.get("baseline") and body.get("item_outcomes"):
                    body["baseline"] = compare(body, first)

    def is_empty(self) -> bool:
        return not (self.models or self.ttft or self.projections or self.engines)


def read_inputs(results: Path, engines: Path, scale: str, order: list[str]) -> Inputs:
    """Everything under results/<scale> and engines; models in `order` first, then by name.

    Raises PipelineError where there is nothing to report.
    """
    inputs = Inputs(scale)
    folder = results / scale
    found = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    for model in [*(name for name in order if name in found), *sorted(found - set(order), key=_baseline_first)]:
        _read_model(inputs, folder / model)
    for path in sorted(folder.glob("*.json")):
        body = _read(inputs, path)
        if body is None:
            continue
        if path.stem.startswith("ttft-"):
            inputs.ttft[path.stem.removeprefix("ttft-")] = body
        elif path.stem.startswith("projection-"):
            inputs.projections[path.stem.removeprefix("projection-")] = body
    for path in sorted(engines.glob("*/engine.json")):
        body = _read(inputs, path)
        if body is not None:
            inputs.engines[path.parent.name] = body
    if inputs.is_empty():
        raise PipelineError(
            f"no result files under {folder} or {engines}: nothing to report. Make some first, as "
            "python -m pipeline +experiment=kraken_tp4"
            + ("".join(f"\n  - {fault}" for fault in inputs.faults) if inputs.faults else "")
        )
    return inputs


def _baseline_first(name: str) -> tuple[bool, str]:
    """Where no experiment gives an order: standard models, then by name."""
    return "standard" not in name, name


def _read_model(inputs: Inputs, folder: Path) -> None:
    for path in sorted(folder.glob("*.json")):
        body = _read(inputs, path)
        if body is None:
            continue
        if path.stem == "training":
            inputs.training[folder.name] = body
        elif path.stem == "perplexity":
            inputs.perplexity[folder.name] = body
        elif isinstance(body.get("tasks"), dict):
            inputs.tasks.setdefault(path.stem, {})[folder.name] = body


def _read(inputs: Inputs, path: Path) -> Body | None:
    """A JSON object, or None with the fault noted."""
    try:
        body = files.read_json(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        inputs.faults.append(f"{path}: cannot be read ({error}); make it again")
        return None
    if not isinstance(body, dict):
        inputs.faults.append(f"{path}: not a JSON object; make it again")
        return None
    inputs.sources.append(str(path))
    return body
