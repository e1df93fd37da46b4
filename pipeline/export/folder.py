"""An engine's folder: engine.json beside the files it describes, complete or not there at all."""

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import CheckpointError

FILE = "engine.json"
FORMAT = 1


def read(folder: Path) -> dict[str, Any]:
    """engine.json of a finished engine; raises CheckpointError where it is missing, damaged or incomplete."""
    path = folder / FILE
    try:
        body = files.read_json(path)
        sizes = {str(name): int(size) for name, size in body["sizes"].items()}
    except FileNotFoundError:
        raise CheckpointError(f"no engine in {folder}: python -m stages.build_engine makes one") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe an engine: {error!r}") from None
    for name, size in sizes.items():
        part = folder / name
        found = part.stat().st_size if part.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise CheckpointError(f"{part} {state}: build the engine again")
    return dict(body)


def is_current(folder: Path, key: str) -> bool:
    """Whether a complete engine of this key stands in `folder`."""
    try:
        return bool(read(folder)["key"] == key)
    except (CheckpointError, KeyError):
        return False


def check_version(body: dict[str, Any], module: str, version: str) -> None:
    """Raises CheckpointError where an engine was built by another module or version than is to load it."""
    if (body["module"], body["version"]) != (module, version):
        raise CheckpointError(
            f"the engine was built by {body['module']} {body['version']}, here is {module} {version}, and engines "
            "load only where they were made: build it again with python -m stages.build_engine"
        )


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of a folder, by its path inside it."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }


def publish(temporary: Path, folder: Path) -> None:
    """Move a finished folder into place; an older one is gone before engine.json of the new one is written."""
    if folder.exists():
        shutil.rmtree(folder)
    temporary.replace(folder)
