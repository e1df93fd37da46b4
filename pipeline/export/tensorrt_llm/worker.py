"""What runs inside TensorRT-LLM's environment: python worker.py SPEC RESULT [RANKS].

Needs Python 3.10 and the standard library, so that it starts in any environment; SPEC and RESULT are JSON files.
Actions: probe (what is here), build (run trtllm-build), benchmark (time first tokens under mpirun).
"""

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

TAIL = 2000


def main(arguments: list[str]) -> int:
    spec_path, result_path = Path(arguments[0]), Path(arguments[1])
    spec = json.loads(spec_path.read_text())
    action = spec["action"]
    body: dict[str, Any] | None
    if action == "probe":
        body = probe()
    elif action == "build":
        body = build(spec)
    elif action == "benchmark" and arguments[2:] != ["rank"]:
        body = launch(spec, arguments)
    else:
        return rank_benchmark(spec, result_path)
    if body is not None:
        temporary = result_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(body))
        temporary.replace(result_path)
    return 0


def probe() -> dict[str, Any]:
    """Versions and GPUs of this environment."""
    return {
        "format": 1,
        "action": "probe",
        "python": platform.python_version(),
        "tensorrt_llm": _version("tensorrt_llm"),
        "tensorrt": _version("tensorrt"),
        "gpus": _gpus(),
    }


def build(spec: dict[str, Any]) -> dict[str, Any]:
    """Run the command of the spec; what it printed last is kept when it fails."""
    begun = time.perf_counter()
    code, text = _run(spec["command"], spec.get("environment", {}))
    engines = sorted(path.name for path in Path(spec["output_dir"]).glob("rank*.engine"))
    return {
        **probe(),
        "action": "build",
        "exit_code": code,
        "tail": text[-TAIL:] if code else "",
        "engines": engines,
        "seconds": time.perf_counter() - begun,
    }


def launch(spec: dict[str, Any], arguments: list[str]) -> "dict[str, Any] | None":
    """Start one process a rank; the first writes the result, and a failure is written here."""
    command = ["mpirun", "-n", str(spec["tp_size"]), "--allow-run-as-root", sys.executable, __file__]
    code, text = _run([*command, *arguments[:2], "rank"], spec.get("environment", {}))
    if code == 0:
        return None
    return {**probe(), "action": "benchmark", "exit_code": code, "tail": text[-TAIL:], "samples_ms": []}


def rank_benchmark(spec: dict[str, Any], result_path: Path) -> int:
    """Time first tokens on this rank: a barrier before each, the slowest rank counts."""
    sys.path.insert(0, str(Path(__file__).parent))
    from model import first_token_runner  # type: ignore[import-not-found, unused-ignore]
    from mpi4py import MPI  # type: ignore[import-not-found, unused-ignore]  # comes with TensorRT-LLM

    world = MPI.COMM_WORLD
    rank = world.Get_rank()
    run = first_token_runner(spec["engine_dir"], rank)
    samples: list[float] = []
    begun = time.monotonic()
    rounds = 0
    while not world.bcast(_enough(spec, samples, time.monotonic() - begun), root=0):
        world.Barrier()
        started = time.perf_counter()
        run(spec["tokens"])
        taken = world.allreduce((time.perf_counter() - started) * 1e3, op=MPI.MAX)
        rounds += 1
        if rounds > spec["warmup"]:
            samples.append(taken)
    if rank == 0:
        body = {**probe(), "action": "benchmark", "exit_code": 0, "tail": "", "samples_ms": samples}
        result_path.write_text(json.dumps(body))
    return 0


def _enough(spec: dict[str, Any], samples: list[float], elapsed_s: float) -> bool:
    if len(samples) >= spec["repeats_max"]:
        return True
    return bool(len(samples) >= spec["repeats_min"] and elapsed_s >= spec["time_limit_s"])


def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
        )
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout


def _version(name: str) -> "str | None":
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    code, text = _run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], {})
    return text.split("\n")[:-1] if code == 0 else []


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
