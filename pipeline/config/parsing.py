"""From composed plain data to a checked Config, or every fault of it at once."""

import difflib
from collections.abc import Callable, Collection
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config import rules
from pipeline.config.group import Group
from pipeline.config.model import ModelConfig
from pipeline.config.schema import Config
from pipeline.errors import ConfigError

PLAINLY = {  # pydantic's kinds of faults whose own words are Python's
    "dict_type": "must be a mapping, as {key: value}",
    "model_type": "must be a mapping, as {key: value}",
    "list_type": "must be a list, as [one,two]",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def no_faults(_: object) -> list[str]:
    return []


def parse(
    raw: dict[str, Any],
    model_faults: Callable[[ModelConfig], list[str]] = no_faults,
    more_faults: Callable[[Config], list[str]] = no_faults,
    read: Collection[str] | None = None,
) -> Config:
    """Type and check a composed configuration; raises ConfigError with every fault at once.

    What a model may be is known where models are built: `model_faults` finds what keeps this one from being built,
    `more_faults` what else is wrong with a configuration whose model can be. Rules between groups hold for those that
    are `read` (None: all).
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_describe([*_faults(error), *_model_faults(raw, model_faults)])) from None
    of_model = model_faults(config.model)
    faults = [*of_model, *rules.faults(config, read), *([] if of_model else more_faults(config))]
    if faults:
        raise ConfigError(_describe(faults))
    return config


def parse_group(group: str, raw: object, where: str) -> Group:
    """Type one group's values; raises ConfigError, which begins with `where`, with every fault at once."""
    annotation = Config.model_fields[group].annotation
    kind = next(one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, Group))
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_faults(error, group))}") from None


def _model_faults(raw: dict[str, Any], model_faults: Callable[[ModelConfig], list[str]]) -> list[str]:
    """Faults of the model where its own types are right, whatever the other groups' are."""
    try:
        return model_faults(ModelConfig.model_validate(raw.get("model")))
    except ValidationError:
        return []


def _faults(error: ValidationError, *group: str) -> list[str]:
    return [_fault({**detail, "loc": (*group, *detail["loc"])}) for detail in error.errors()]


def _describe(faults: list[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{count} in the configuration:\n" + "\n".join(f"  - {fault}" for fault in faults)


def _fault(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key}: missing; set it in conf/ or on the command line"
    message = PLAINLY.get(detail["type"], detail["msg"].removeprefix("Value error, ").replace("Input should", "must"))
    if detail["type"] == "value_error":  # a line begins with a field of the group, or with = and the field's value
        return "; ".join(f"{key}{'' if line[0] == '=' else '.'}{line}" for line in message.split("\n"))
    value = "null" if detail["input"] is None else repr(detail["input"])
    return f"{key}={value}: {message}"


def _suggestion(location: tuple[Any, ...]) -> str:
    near = nearest(str(location[-1]), known_keys(".".join(str(part) for part in location[:-1])))
    return f"; did you mean {near}?" if near else ""


def known_keys(group: str) -> list[str]:
    """Keys of a dotted group ("model", or "" for the root); empty where the group is free-form."""
    current: type[BaseModel] = Config
    for part in filter(None, group.split(".")):
        field = current.model_fields.get(part)
        annotations = [field.annotation, *get_args(field.annotation)] if field else []  # X, or the X of X | None
        groups = [kind for kind in annotations if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not groups:
            return []
        current = groups[0]
    return list(current.model_fields)


def nearest(name: str, candidates: list[str]) -> str | None:
    """The candidate closest in spelling, of those that begin so where any does; None when nothing is near."""
    begun = [candidate for candidate in candidates if name and candidate.startswith(name)]
    close = difflib.get_close_matches(name, begun or candidates, n=1, cutoff=0.0 if begun else 0.5)
    return close[0] if close else None
