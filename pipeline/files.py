"""Writing that leaves nothing half done: to a temporary name first, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError

VARIANT = "~"  # in a file's or folder's name, before the digits that stand for overridden settings


def plain_name(name: str) -> str:
    """A name without the digits that stand for overridden settings."""
    return re.sub(f"{VARIANT}[0-9a-f]{{6}}", "", name)


def variants(path: Path) -> list[Path]:
    """What stands where `path` would, whatever settings were overridden for it; `path` itself first."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    same = (one for one in beside if plain_name(one.name) == plain_name(path.name))
    return sorted(same, key=lambda one: (one.name != path.name, one.name))


def check_writable(folder: Path, needed_bytes: int = 0, hint: str = "paths.*") -> None:
    """Create `folder` and make sure a file of `needed_bytes` fits; raises OutputError otherwise.

    `hint` names the setting that would choose another folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-probe-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}. Choose another folder with {hint}=") from error
    if free < needed_bytes:
        raise OutputError(
            f"{folder} has {free / 1e9:.2f} GB free, the work needs {needed_bytes / 1e9:.2f} GB. "
            f"Free space or choose another folder with {hint}="
        )


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without error.

    Works for files and for folders. Raises OutputError when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.exists():  # a folder cannot be renamed over a full one
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.replace(old)
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        raise
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, body: Any) -> None:
    """Write `body` as indented JSON; NaN and infinities are refused (they are not JSON)."""
    write_text(path, json.dumps(body, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; raises FileNotFoundError or json.JSONDecodeError."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes as hex, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
