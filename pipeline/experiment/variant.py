"""The part of a file's name that tells overridden settings from the shipped ones."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from pipeline.config import Config
from pipeline.experiment.identity import values
from pipeline.files import VARIANT
from pipeline.provenance import fingerprint

IN_THE_NAME = ("engine.tp_size",)  # of fields that stand in the file's name anyway


def variant(config: Config, spelled: Sequence[str] = (), unspelled: Sequence[str] = ()) -> str:
    """ "" where every value is as the file's name has a reader expect, else "~" and 6 hex digits of those that are not.

    Both hold groups, or single fields "group.field". What the name spells is expected as shipped under that name: a
    name that is no shipped file's says nothing. What it does not spell is expected as the scale chooses it.
    The same overrides give every shipped model the same variant.
    """
    differing: dict[str, Any] = {}
    for entry in (*spelled, *unspelled):
        group, _, field = entry.partition(".")
        name = getattr(config, group).name if entry in spelled else _chosen(config.scale.name)[group]["name"]
        expected = _shipped(group, name)
        ours = values(config, [group])[group]
        for one in [field] if field else ours:
            key = f"{group}.{one}"
            if key not in IN_THE_NAME and (one not in expected or ours[one] != expected[one]):
                differing[key] = ours[one]
    return VARIANT + fingerprint(differing)[:6] if differing else ""


def _shipped(group: str, name: str) -> dict[str, Any]:
    """The values of conf/<group>/<name>.yaml; none where there is no such file."""
    from pipeline.compose import group_options, shipped

    return shipped(group, name).identity() if name in group_options(group) else {}


@cache
def _chosen(scale: str) -> dict[str, Any]:
    """What is composed at a scale without any override; at a name that is no scale's, by conf/config.yaml."""
    from pipeline.compose import compose_raw, group_options

    return compose_raw([f"scale={scale}"] if scale in group_options("scale") else [])
