"""From composed plain data to a checked Config, or every fault of it at once."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.config import rules
from pipeline.config.schema import Config
from pipeline.errors import ConfigError


def parse(raw: dict[str, Any]) -> Config:
    """Type and check a composed configuration; raises ConfigError with every fault at once."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_describe([_fault(detail) for detail in error.errors()])) from None
    faults = rules.faults(config)
    if faults:
        raise ConfigError(_describe(faults))
    return config


def _describe(faults: list[str]) -> str:
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return f"{count} in the configuration:\n" + "\n".join(f"  - {fault}" for fault in faults)


def _fault(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key{_suggestion(detail['loc'])}"
    if detail["type"] == "missing":
        return f"{key}: missing; set it in conf/ or on the command line"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if detail["type"] == "value_error":
        return "; ".join(f"{key}.{line}" if key else line for line in message.split("\n"))
    return f"{key}={detail['input']!r}: {message}"


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
    """The candidate closest in spelling, or None when nothing is near."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return close[0] if close else None
