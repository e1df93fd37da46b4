"""Where a result came from: what every result file carries so that it can be made again."""

import functools
import hashlib
import json
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import files

PACKAGES = ("torch", "ray", "mlflow", "datasets", "lm_eval", "transformers", "tensorrt-rtx-cu13")
HASHED_BYTES = 1_000_000_000  # a second of hashing
RESULT_FORMAT = 2


def fingerprint(*parts: Any) -> str:
    """First 12 hex digits of the SHA-256 of the parts as canonical JSON: equal parts, equal name."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def git_commit() -> str:
    """The commit of the working folder, with "+changes" if tracked files differ, or "unknown"."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout.strip()


@functools.cache
def package_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def cpu_name() -> str:
    """The processor's name as Linux gives it, or what `platform` knows."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_description() -> dict[str, Any]:
    """CPU model, usable cores and memory, and every CUDA device's name."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
    }


def content_mark(path: Path) -> str:
    """Names what a file or folder holds. Tokens, trained models and engines are known by the hashes that they state
    of themselves, so that nothing large is read; other folders by their files' names, sizes and times."""
    if path.is_file():
        return files.sha256_of(path)[:12]
    if not path.is_dir():
        return "absent"
    for name, stated in STATED.items():
        if (path / name).is_file():
            try:
                return fingerprint(stated(path, files.read_json(path / name)))
            except (OSError, ValueError, KeyError, TypeError):
                break  # damaged, or of another project: known from outside
    found = [(str(file.relative_to(path)), file.stat()) for file in sorted(path.rglob("*")) if file.is_file()]
    return fingerprint([(name, stat.st_size, stat.st_mtime_ns) for name, stat in found])


def damage(folder: Path, name: str) -> str | None:
    """Why a folder is not what its description, the file `name` in it, states; None where it is whole."""
    try:
        STATED[name](folder, files.read_json(folder / name))
    except FileNotFoundError as error:
        return f"{error.filename} is missing"
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
        return f"{folder / name} is damaged"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _tokens(folder: Path, manifest: Any) -> object:
    return [shard["sha256"] for shard in manifest["shards"]], manifest["tokenizer"]["sha256"]


def _weights(folder: Path, config: Any) -> object:
    weights = config["weights"]
    path = folder / weights["file"]
    _check_size(path, weights["bytes"])
    small = weights["bytes"] <= HASHED_BYTES  # larger ones are held against their hash when they are loaded
    if small and _sha256(path, weights["bytes"], path.stat().st_mtime_ns) != weights["sha256"]:
        raise ValueError(f"{path} has another SHA-256 than {folder / 'config.json'} states")
    return weights["sha256"], config.get("tokenizer_sha256")


def _checkpoint(folder: Path, state: Any) -> object:
    return state["step"], state["sha256"]


def _engine(folder: Path, description: Any) -> object:
    for name, size in description["sizes"].items():
        _check_size(folder / name, size)
    return description["key"]


def _check_size(path: Path, size: int) -> None:
    """Raises ValueError where a file is of another size than stated."""
    found = path.stat().st_size
    if found != size:
        raise ValueError(f"{path} has {found} bytes, not {size}")


@functools.lru_cache(1000)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    return files.sha256_of(path)


# descriptions by which a folder is known: each gives what names the content, or raises where the folder is not whole
STATED = {"manifest.json": _tokens, "config.json": _weights, "engine.json": _engine, "state.json": _checkpoint}


def host() -> str:
    """Names this machine without telling its name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def describe(
    config_fingerprint: str, inputs: dict[str, str] | None = None, code: dict[str, str] | None = None, **more: Any
) -> dict[str, Any]:
    """The provenance block of a result file, by which it can be made again and is known to be current or stale.

    `inputs` are the marks of what it was made from, `code` the digests of the rooms that made it.
    """
    return {
        "format": RESULT_FORMAT,
        "commit": git_commit(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "device": device_description(),
        "host": host(),
        "config_fingerprint": config_fingerprint,
        "code": code or {},
        "inputs": inputs or {},
        **more,
    }
