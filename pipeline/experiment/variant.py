"""The part of a file's name that tells overridden settings from the shipped ones."""

from typing import Any

from pipeline.config import Config
from pipeline.experiment.identity import values
from pipeline.files import VARIANT
from pipeline.provenance import fingerprint

IN_THE_NAME = ("engine.tp_size",)  # of fields that stand in the file's name anyway


def variant(config: Config, *entries: str) -> str:
    """ "" where every group is as the file of its name says, else "~" and 6 hex digits of the values that differ.

    `entries` are groups, or single fields "group.field". Choosing another file of a group is no difference, and a
    group whose name is no file's was named by its user. The same overrides give every model the same variant.
    """
    differing: dict[str, Any] = {}
    for entry in entries:
        group, _, field = entry.partition(".")
        shipped = _shipped(group, getattr(config, group).name)
        if shipped is None:
            continue
        ours = values(config, [group])[group]
        for name in [field] if field else ours:
            key = f"{group}.{name}"
            if ours[name] != shipped[name] and key not in IN_THE_NAME:
                differing[key] = ours[name]
    return VARIANT + fingerprint(differing)[:6] if differing else ""


def _shipped(group: str, name: str) -> dict[str, Any] | None:
    from pipeline.compose import group_options, shipped

    return shipped(group, name).identity() if name in group_options(group) else None
