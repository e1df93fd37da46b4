"""An engine's folder: engine.json beside the files it describes, complete or not there at all."""

from pathlib import Path

from pipeline.errors import CheckpointError, ResultError
from pipeline.results import file
from pipeline.results.engine import EngineResult

FILE = "engine.json"
FORMAT = 2  # raised where what is built before must not run, or be timed, beside what is built now


def read(folder: Path) -> EngineResult:
    """engine.json of a finished engine; raises CheckpointError where it is missing, damaged, incomplete or outdated."""
    try:
        engine = file.read(folder / FILE, EngineResult)
    except FileNotFoundError:
        raise CheckpointError(f"no engine in {folder}: {EngineResult.command} makes one") from None
    except ResultError as error:
        raise CheckpointError(str(error)) from None
    if engine.engine_format != FORMAT:
        raise CheckpointError(
            f"the engine in {folder} was built in format {engine.engine_format}, here is {FORMAT}: build it again with "
            "python -m stages.build_engine"
        )
    for name, size in engine.sizes.items():
        part = folder / name
        found = part.stat().st_size if part.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise CheckpointError(f"{part} {state}: build the engine again")
    return engine


def is_current(folder: Path, key: str) -> bool:
    """Whether a complete engine of this key stands in `folder`."""
    try:
        return read(folder).key == key
    except CheckpointError:
        return False


def check_version(engine: EngineResult, module: str, version: str) -> None:
    """Raises CheckpointError where an engine was built by another module or version than is to load it."""
    if (engine.module, engine.version) != (module, version):
        raise CheckpointError(
            f"the engine was built by {engine.module} {engine.version}, here is {module} {version}, and engines "
            "load only where they were made: build it again with python -m stages.build_engine"
        )


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of a folder, by its path inside it."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE
    }
