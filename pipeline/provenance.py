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
RESULT_FORMAT = 1


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


def device_description() -> dict[str, Any]:
    """CPU model, usable cores and memory, and every CUDA device's name."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
    }


def content_mark(folder: Path) -> str:
    """Names what a folder of tokens or a trained model holds, by the hashes in its own description."""
    manifest, config = folder / "manifest.json", folder / "config.json"
    if manifest.is_file():
        return fingerprint([shard["sha256"] for shard in files.read_json(manifest)["shards"]])
    return fingerprint(files.read_json(config)) if config.is_file() else "absent"


def describe(config_fingerprint: str, inputs: dict[str, str] | None = None) -> dict[str, Any]:
    """The provenance block of a result file; `inputs` are the marks of the folders it was made from."""
    return {
        "format": RESULT_FORMAT,
        "commit": git_commit(),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "device": device_description(),
        "host": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8],
        "config_fingerprint": config_fingerprint,
        "inputs": inputs or {},
    }


def write_result(
    path: Path, body: dict[str, Any], config_fingerprint: str, inputs: dict[str, str] | None = None
) -> None:
    """Write one result file: `body` plus its provenance, atomically."""
    files.write_json(path, {**body, "provenance": describe(config_fingerprint, inputs)})
