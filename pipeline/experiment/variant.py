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
        if entry in spelled:
            expected = _shipped(group, getattr(config, group).name)
        else:
            expected = chosen(config.scale.name, config.model.name, group)
        ours = values(config, [group])[group]
        for one in [field] if field else {**ours, **expected}:
            key = f"{group}.{one}"
            if key not in IN_THE_NAME and (one not in expected or ours.get(one) != expected[one]):
                differing[key] = ours.get(one)
    return VARIANT + fingerprint(differing)[:6] if differing else ""


def _shipped(group: str, name: str) -> dict[str, Any]:
    """The values of conf/<group>/<name>.yaml; none where there is no such file."""
    from pipeline.compose import group_options, shipped, shipped_study

    if group == "study":
        return study.identity() if (study := shipped_study(name)) else {}
    return shipped(group, name).identity() if name in group_options(group) else {}


@cache
def chosen(scale: str, model: str, group: str) -> dict[str, Any]:
    """A group as a scale chooses it for a model, by whose recipe some values go."""
    from pipeline.compose import compose_raw, group_options
    from pipeline.config.parsing import parse_group

    chosen = {"scale": scale, "model": model}
    raw = compose_raw([f"{name}={option}" for name, option in chosen.items() if option in group_options(name)])
    return parse_group(group, raw[group], f"scale={scale}").identity()
