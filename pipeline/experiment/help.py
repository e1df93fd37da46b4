"""The text of --help: read from conf/ as it stands, with nothing heavy imported."""

from pathlib import Path

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"

INTRODUCTION = """Train, score, build and time Kraken and its baselines, and write the paper's tables beside ours.

  python -m pipeline +experiment=NAME [scale=SCALE] [key=value …]
  python -m pipeline +experiment=NAME debug=dry_run     the plan, and what this machine lacks
  python -m stages.STAGE [key=value …]                  one stage of one model
"""


def text() -> str:
    """Experiments, scales and stages with a line each, and the groups that can be chosen from."""
    from pipeline.experiment.stages import STAGES

    parts = [INTRODUCTION]
    parts.append(_section("experiments", _titles("experiment", "experiment")))
    parts.append(_section("scales", _titles("scale", "scale")))
    parts.append(_section("stages", [(stage.name, stage.title) for stage in STAGES]))
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("experiment", "scale"))
    rows = [(group, _names(group)) for group in groups]
    parts.append(_section("groups (group=name; every field as group.field=value)", rows))
    return "\n".join(parts)


def _titles(folder: str, key: str) -> list[tuple[str, str]]:
    files = sorted((CONF / folder).glob("*.yaml"))
    return [(path.stem, str(yaml.safe_load(path.read_text())[key]["title"])) for path in files]


def _names(group: str) -> str:
    names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    return ", ".join(names) if len(names) < 10 else f"{', '.join(names[:6])}, … ({len(names)} in conf/{group})"


def _section(title: str, rows: list[tuple[str, str]]) -> str:
    width = max((len(name) for name, _ in rows), default=0)
    return f"{title}:\n" + "".join(f"  {name:<{width}}  {about}\n" for name, about in rows)
