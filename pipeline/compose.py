"""From conf/ and a command line to a checked Config. The only file that imports Hydra."""

import difflib
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import Config, ModelConfig, known_keys, nearest, parse
from pipeline.config.group import Group
from pipeline.config.hardware import HardwareConfig
from pipeline.config.parsing import parse_group
from pipeline.config.study import StudyConfig
from pipeline.errors import ConfigError

CONF = Path(__file__).resolve().parent.parent / "conf"


def compose(overrides: list[str], read: Collection[str] | None = None) -> Config:
    """Compose conf/ with Hydra overrides and check it; raises ConfigError with all faults.

    `read` names the identity groups that the work reads (None: all): what does not fit in others is no fault.
    """
    from pipeline.models.placement import shape_faults

    return parse(compose_raw(overrides), shape_faults, _ranks, read)


def compose_raw(overrides: list[str]) -> dict[str, Any]:
    """The composed configuration as plain data, interpolations resolved, not yet checked."""
    for override in overrides:
        if not re.match(r"~|[^=\s]+=", override):
            raise ConfigError(f"{override}: not of the form key=value")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra_compose("config", [_addable(override) for override in overrides])
        raw = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(_explain(str(error), overrides)) from None  # Hydra's own, or what it trips over
    assert isinstance(raw, dict)
    return {str(key): value for key, value in raw.items()}


@cache
def model_config(name: str) -> ModelConfig:
    """One model's configuration by the name of its file; raises ConfigError for an unknown name or a wrong shape."""
    from pipeline.models.placement import shape_faults

    model = shipped("model", name)
    assert isinstance(model, ModelConfig)
    faults = shape_faults(model)
    if faults:
        raise ConfigError(f"conf/model/{name}.yaml: {'; '.join(faults)}")
    return model


@cache
def shipped(group: str, name: str) -> Group:
    """The typed values of conf/<group>/<name>.yaml and of what it inherits, as no override changed them.

    What refers to another group has its default. Raises ConfigError for an unknown name and for values of a wrong
    type. Not for experiment and scale, whose files set other groups.
    """
    merged = OmegaConf.merge(*({group: _body(group, part)} for part in _lineage(group, name)))
    raw = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(raw, dict)
    raw[group].pop("defaults", None)
    return parse_group(group, raw[group], f"conf/{group}/{name}.yaml")


@cache
def shipped_study(experiment: str) -> StudyConfig | None:
    """The study of conf/experiment/<experiment>.yaml, as no override changed it; None where there is none."""
    if experiment not in group_options("experiment"):
        return None
    raw = compose_raw([f"+experiment={experiment}"]).get("study")
    if raw is None:
        return None
    study = parse_group("study", raw, f"conf/experiment/{experiment}.yaml")
    assert isinstance(study, StudyConfig)
    return study


def experiments_with(group: str) -> list[str]:
    """Experiments whose file sets a group that has no default."""
    return [name for name in group_options("experiment") if compose_raw([f"+experiment={name}"]).get(group)]


def device_flops() -> dict[str, float]:
    """Dense bfloat16 FLOP/s by torch's name of the device, from conf/hardware; float16's rate is the same on these."""
    found: dict[str, float] = {}
    for name in group_options("hardware"):
        hardware = shipped("hardware", name)
        assert isinstance(hardware, HardwareConfig)
        if hardware.cuda_name is not None:
            found[hardware.cuda_name] = hardware.matmul_flops
    return found


def sources(group: str, name: str) -> list[Path]:
    """The files that conf/<group>/<name>.yaml is made of: those it inherits, and itself last."""
    return [CONF / group / f"{part}.yaml" for part in dict.fromkeys(_lineage(group, name))]


@cache
def group_options(group: str) -> list[str]:
    """Names of the config files of a group, as group_options("model")."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _lineage(group: str, name: str, heirs: tuple[str, ...] = ()) -> list[str]:
    """Names of the files that make up a config, in the order in which later ones win: Hydra's, within one group."""
    if name not in group_options(group):
        heir = f"conf/{group}/{heirs[-1]}.yaml: defaults: " if heirs else ""
        raise ConfigError(f"{heir}{group}={name}: no such {group}{_near(name, group_options(group))}")
    if name in heirs:
        raise ConfigError(f"conf/{group}/{name}.yaml: inherits itself, through {' and '.join(heirs)}")
    found: list[str] = []
    for part in _body(group, name).get("defaults", ["_self_"]):
        found += [name] if part == "_self_" else _lineage(group, part, (*heirs, name))
    return found


@cache
def _body(group: str, name: str) -> DictConfig:
    loaded = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


def _ranks(config: Config) -> list[str]:
    from pipeline.models.placement import tp_size_faults

    sizes = {"cluster.tp_size": config.cluster.tp_size, "cluster.evaluation_tp_size": config.cluster.evaluation_tp_size}
    return [fault for key, size in sizes.items() for fault in tp_size_faults(config.model, size, key)]


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
        if (
            (CONF / key).is_dir()
            and value not in group_options(key)
            and any(sign in message for sign in (f"{key}/{value}", "Config group override must be"))
        ):
            options = group_options(key)
            near = difflib.get_close_matches(value, options, n=8, cutoff=0.3) if len(options) > 12 else []
            listed = near or options
            return f"{override}: no such {key}{_near(value, options)}\n  there are: {', '.join(listed)}"
        keys = known_keys(group) if group else []
        if field and keys and field not in keys and f"'{key}'" in message:
            return f"{override}: no such key{_near(field, keys, group)}\n  {group} has: {', '.join(keys)}"
        if group and f"'{key}'" in message:
            return f"{override}: no such key"
        root = key.split(".")[0]
        if root and root not in known_keys("") and not (CONF / root).is_dir():
            return f"{override}: no such key{_near(root, known_keys(''))}"
    if "override_grammar" in message or "mismatched input" in message or "no viable alternative" in message:
        return f"{' '.join(overrides)}: not of the form key=value ({message.splitlines()[0]})"
    blamed = [override for override in overrides if override.partition("=")[0] in message] or overrides
    if message.startswith("Error merging override"):
        return f"{' '.join(blamed)}: the config file has a value of another kind there, as a mapping or a list"
    return f"{' '.join(blamed)}: {message.splitlines()[0].strip()}"


def _near(name: str, candidates: list[str], group: str = "") -> str:
    close = nearest(name, candidates)
    if close is None:
        return ""
    return f"; did you mean {group + '.' if group else ''}{close}?"
