"""From conf/ and a command line to a checked Config. The only file that imports Hydra."""

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import Config, ModelConfig, known_keys, nearest, parse
from pipeline.errors import ConfigError

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose(overrides: list[str]) -> Config:
    """Compose conf/ with Hydra overrides and check it; raises ConfigError with all faults."""
    return parse(compose_raw(overrides))


def compose_raw(overrides: list[str]) -> dict[str, Any]:
    """The composed configuration as plain data, interpolations resolved, not yet checked."""
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ConfigError(f"{override}: not of the form key=value")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra_compose("config", [_addable(override) for override in overrides])
        raw = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(str(error), overrides)) from None
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items()}


def model_config(name: str) -> ModelConfig:
    """One model's configuration by the name of its file; raises ConfigError for an unknown name."""
    options = group_options("model")
    if name not in options:
        raise ConfigError(f"model={name}: no such model{_near(name, options)}")
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"), resolve=True)
    return ModelConfig.model_validate(loaded)


@cache
def group_options(group: str) -> list[str]:
    """Names of the config files of a group, as group_options("model")."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _addable(override: str) -> str:
    """`training.seed=1` may set a field that the config file leaves at its default: Hydra wants ++ for that."""
    key, _, _ = override.partition("=")
    group, _, field = key.rpartition(".")
    return f"++{override}" if group and field in known_keys(group) else override


def _explain(message: str, overrides: list[str]) -> str:
    """Hydra's message as one that names the override at fault and the nearest right spelling."""
    for override in overrides:
        key, _, value = override.partition("=")
        key = key.lstrip("+~")
        group, _, field = key.rpartition(".")
        if not field and f"'{key}'" in message:
            return f"{override}: no such key{_near(key, known_keys(''))}"
        if (CONF / key).is_dir() and value not in group_options(key) and f"{key}/{value}" in message:
            options = group_options(key)
            listed = difflib.get_close_matches(value, options, n=8, cutoff=0.3) if len(options) > 12 else options
            return f"{override}: no such {key}{_near(value, options)}\n  there are: {', '.join(listed)}"
        keys = known_keys(group) if group else []
        if field and keys and field not in keys and f"'{key}'" in message:
            return f"{override}: no such key{_near(field, keys, group)}\n  {group} has: {', '.join(keys)}"
        root = key.split(".")[0]
        if root and root not in known_keys("") and not (CONF / root).is_dir():
            return f"{override}: no such key{_near(root, known_keys(''))}"
    if "override_grammar" in message or "mismatched input" in message or "no viable alternative" in message:
        return f"{' '.join(overrides)}: not of the form key=value ({message.splitlines()[0]})"
    first = re.split(r"\n\s*full_key|\nSet the env|\nTo append", message)[0].strip()
    return f"{' '.join(overrides)}: {first}"


def _near(name: str, candidates: list[str], group: str = "") -> str:
    close = nearest(name, candidates)
    if close is None:
        return ""
    return f"; did you mean {group + '.' if group else ''}{close}?"
