"""Writing that leaves nothing half done (to a temporary name first, then renamed) and replaces only what is our own."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError

VARIANT = "~"  # in a file's or folder's name, before the digits that stand for overridden settings

# the files by which a folder that the pipeline made is known, each with keys that it has
MARKS = {
    "manifest.json": {"shards", "tokenizer"},  # tokens
    "config.json": {"model", "weights"},  # a trained model
    "engine.json": {"key"},  # an engine
    "spec.json": {"engine"},  # an engine whose engine.json was not written yet
    "state.json": {"step", "fingerprint"},  # a checkpoint
}
NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # some network file systems
POLL_S = 0.2


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


def check_replaceable(path: Path) -> None:
    """Raise OutputError where `path` is a folder that is neither empty nor one that the pipeline made."""
    if path.is_dir() and any(path.iterdir()) and not any(_is_mark(path / name, keys) for name, keys in MARKS.items()):
        raise OutputError(
            f"{path} is not replaced: it is a folder that this pipeline did not make. Move it away, or choose another "
            "name or another folder with paths.*="
        )


def _is_mark(path: Path, keys: set[str]) -> bool:
    try:
        body = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and keys <= body.keys()


@contextlib.contextmanager
def locked(
    path: Path, wait_s: float, in_use: str, waiting: Callable[[], None] | None = None, removes: bool = False
) -> Iterator[None]:
    """Hold the lock file `path`, or raise OutputError(in_use) where another process keeps it longer than `wait_s`.

    `waiting` is called once where it is not free at once. The lock goes with its process, however that ends; its file
    stays, unless it `removes` it.
    """
    deadline = time.monotonic() + wait_s
    while True:
        with path.open("a") as file:
            while not _taken(file.fileno()):
                if time.monotonic() > deadline:
                    raise OutputError(in_use)
                if waiting:
                    waiting()
                    waiting = None
                time.sleep(POLL_S)
            if not _is_there(path, file.fileno()):  # whoever held it has removed it, and another may hold a new one
                continue
            try:
                yield
            finally:
                if removes:
                    path.unlink(missing_ok=True)
            return


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether `path` is still the file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
    return True


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without error.

    Works for files and for folders; through a link, on the disk it leads to. Raises OutputError when the disk is full,
    and where a folder of another kind than the pipeline's own would be replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and path.exists():  # a folder cannot be renamed over a full one
            check_replaceable(path)
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


def flush(path: Path) -> None:
    """Have a file's bytes, or a folder's list of names, on the disk before anything that follows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
