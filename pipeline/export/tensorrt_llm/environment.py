"""The other environment that TensorRT-LLM lives in: a spec file in, a result file out, checked."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config.engine import EngineConfig
from pipeline.errors import ConfigError, MissingRequirementError, RunError

FIRST, LAST = (0, 12), (1, 2)
CONTAINER = "nvcr.io/nvidia/tensorrt-llm/release:1.2.1"
WORKER = Path(__file__).with_name("worker.py")
WHAT_WOULD_DO = (
    "It needs tensorrt_llm 0.12 to 1.2.1 (1.2.1 is the last release that builds engines), Python 3.10 or 3.12 and "
    "an NVIDIA GPU; 1.2.1 wants tensorrt 10.14, torch 2.9 to 2.10, transformers 4.57.3 and numpy below 2, so it "
    "has an environment of its own: engine.environment=docker engine.environment_path=" + CONTAINER + ", or "
    "engine.environment=venv engine.environment_path=FOLDER. Without one, engine=checkpoint writes what "
    "trtllm-build reads, and engine=tensorrt engine.module=tensorrt_rtx builds engines without a GPU"
)


class WorkerResult(BaseModel):
    """What the worker writes; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int = Field(ge=1, le=1)
    action: str
    python: str
    tensorrt_llm: str | None
    tensorrt: str | None
    gpus: list[str]
    exit_code: int = 0
    tail: str = ""
    engines: list[str] = Field(default_factory=list)
    seconds: float = Field(0.0, ge=0)
    samples_ms: list[float] = Field(default_factory=list)


@dataclass(frozen=True)
class Environment:
    """How a command is run inside: prefix, interpreter and PATH."""

    kind: str
    path: str | None

    @classmethod
    def of(cls, engine: EngineConfig) -> "Environment":
        """Raises ConfigError or MissingRequirementError where the named environment cannot be there."""
        kind, path = engine.environment, engine.environment_path
        if kind != "local" and path is None:
            raise ConfigError(
                f"engine.environment={kind}: engine.environment_path must name "
                + ("the container image, as " + CONTAINER if kind == "docker" else "the venv's folder")
            )
        if kind == "docker" and shutil.which("docker") is None:
            raise MissingRequirementError("engine.environment=docker: no docker on PATH. " + WHAT_WOULD_DO)
        if kind == "venv" and not Path(str(path), "bin", "python").exists():
            raise ConfigError(f"engine.environment_path={path}: no venv there (no bin/python)")
        return cls(kind, path)

    def command(self, arguments: list[str], folders: list[Path]) -> list[str]:
        """`arguments` of the worker as a command line; `folders` must be visible inside."""
        if self.kind == "local":
            return [sys.executable, str(WORKER), *arguments]
        if self.kind == "venv":
            return [str(Path(str(self.path), "bin", "python").absolute()), str(WORKER), *arguments]
        mounts = [f"--volume={folder}:{folder}" for folder in dict.fromkeys([*folders, WORKER.parent])]
        limits = ["--gpus=all", "--ipc=host", "--ulimit=memlock=-1", "--ulimit=stack=67108864"]
        return ["docker", "run", "--rm", *limits, *mounts, str(self.path), "python3", str(WORKER), *arguments]

    def variables(self) -> dict[str, str]:
        """The environment variables the command runs with: a venv's programs come first on PATH."""
        found = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        if self.kind == "venv":
            found["PATH"] = f"{Path(str(self.path), 'bin').absolute()}{os.pathsep}{found.get('PATH', '')}"
        return found

    def run(self, spec: dict[str, Any], folders: list[Path], timeout_s: float | None = None) -> WorkerResult:
        """Run the worker on `spec`; raises RunError where it dies or its result is not one."""
        with tempfile.TemporaryDirectory(prefix="tensorrt-llm-") as scratch:
            spec_path, result_path = Path(scratch, "spec.json"), Path(scratch, "result.json")
            spec_path.write_text(json.dumps(spec))
            command = self.command([str(spec_path), str(result_path)], [Path(scratch), *folders])
            try:
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=self.variables(),
                    timeout=timeout_s,
                )
            except OSError as error:
                raise MissingRequirementError(f"{command[0]}: {error.strerror}. {WHAT_WOULD_DO}") from None
            except subprocess.TimeoutExpired:
                raise RunError(f"{' '.join(command[:3])} … did not end within {timeout_s:.0f} s") from None
            if done.returncode != 0:
                raise RunError(f"{' '.join(command[:3])} … ended with {done.returncode}: {done.stdout[-1500:]}")
            return _read(result_path)


def _read(path: Path) -> WorkerResult:
    try:
        return WorkerResult.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError("TensorRT-LLM's environment wrote no result file") from None
    except ValidationError as error:
        raise RunError(f"TensorRT-LLM's environment wrote a result that is none: {error}") from None


def check_versions(found: WorkerResult) -> str:
    """The version of tensorrt_llm; raises MissingRequirementError where there is none that builds engines."""
    python = f"Python {found.python}"
    if found.tensorrt_llm is None:
        raise MissingRequirementError(
            f"engine=tensorrt_llm: tensorrt_llm is not installed here ({python}). {WHAT_WOULD_DO}"
        )
    numbers = tuple(int(part) for part in found.tensorrt_llm.split(".")[:2] if part.isdigit())
    if not FIRST <= numbers <= LAST:
        raise MissingRequirementError(
            f"engine=tensorrt_llm: tensorrt_llm {found.tensorrt_llm} ({python}) has no trtllm-build for this. "
            f"{WHAT_WOULD_DO}"
        )
    return found.tensorrt_llm
