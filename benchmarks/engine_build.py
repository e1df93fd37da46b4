"""What engines cost to make: a benchmark to run by hand, not a timed test.

    python benchmarks/engine_build.py [--builds kraken_124m_4way …] [--exports kraken_760m_4way …] [--tp-size 4]

1. Build: one rank in a process of its own: seconds, peak memory of the whole process, size of the engine.
2. Export: one rank of a trained model's file as engine=checkpoint, likewise. The file is sparse (a header and a hole), so
   6.7B needs no disk; memory does not depend on the values. Peak memory stands beside the size of the rank's weights.
"""

import argparse
import json
import math
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from pipeline import files
from pipeline.compose import model_config
from pipeline.config import ModelConfig
from pipeline.config.engine import EngineConfig
from pipeline.engines import checkpoint
from pipeline.engines.heads import torch_dtype
from pipeline.engines.spec import EngineSpec
from pipeline.engines.weights import RandomSource, TrainedSource
from pipeline.models import build_model

BUILDS = ("kraken_124m_4way", "standard_124m", "parallel_124m", "ladder_124m")
EXPORTS = ("kraken_760m_4way", "standard_760m", "kraken_6_7b_4way", "standard_6_7b")


def write_sparse_model(folder: Path, config: ModelConfig) -> int:
    """A finished model's folder whose weights are a hole: all zero, float32. Returns the bytes it stands for."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {}
    offset = 0
    for name, parameter in build_model(config, seed=None, device="meta").named_parameters():
        size = 4 * math.prod(parameter.shape)
        header[name] = {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    files.write_json(folder / "config.json", {"model": config.model_dump(mode="json")})
    return offset


def build_one(config: ModelConfig, spec: EngineSpec, folder: Path) -> dict[str, Any]:
    """Build rank 0 in this process."""
    from pipeline.engines.tensorrt import build, module

    trt = module.load("tensorrt_rtx")
    found = build.build_rank(trt, spec, RandomSource(config), 0, folder)
    return {"bytes": found["bytes"], "collectives": found["collectives"], "version": trt.__version__}


def export_one(config: ModelConfig, spec: EngineSpec, folder: Path) -> dict[str, Any]:
    """Export rank 0 of a sparse model in this process."""
    source_bytes = write_sparse_model(folder / "trained", config)
    source = TrainedSource(folder / "trained", config)
    size = checkpoint.export_rank(spec, source, folder, 0, torch_dtype(spec.dtype))
    return {"bytes": size, "source_bytes": source_bytes}


def alone(what: str, model: str, tp_size: int) -> dict[str, Any]:
    """Run one measurement in this process and say what it took. Ways are a rank each where the model has them."""
    config = model_config(model)
    name = {"build": "tensorrt", "export": "checkpoint"}[what]
    spec = EngineSpec.of(config, EngineConfig.model_validate({"name": name, "tp_size": tp_size}))
    torch.set_num_threads(1)
    before = psutil.Process().memory_info().rss
    begun, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        found = {"build": build_one, "export": export_one}[what](config, spec, Path(folder))
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
    times = {"seconds": seconds, "processor_seconds": cpu_seconds}
    return {
        "what": what,
        "model": model,
        "tp_size": tp_size,
        **found,
        **times,
        "peak_bytes": peak,
        "idle_bytes": before,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", nargs="*", default=BUILDS)
    parser.add_argument("--exports", nargs="*", default=EXPORTS)
    parser.add_argument("--tp-size", type=int, default=4)
    parser.add_argument("--alone", nargs=2, metavar=("WHAT", "MODEL"), help="one measurement, in this process")
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(alone(*given.alone, given.tp_size)))
        return 0
    for what, model in [*(("build", one) for one in given.builds), *(("export", one) for one in given.exports)]:
        command = [sys.executable, __file__, "--alone", what, model, f"--tp-size={given.tp_size}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return 1
        found = json.loads(done.stdout)
        print(
            f"{what:6} {model:18} rank 0 of {found['tp_size']}: {found['bytes'] / 1e6:8.1f} MB written, "
            f"{found['seconds']:6.1f} s ({found['processor_seconds']:.1f} s of processor), peak "
            f"{found['peak_bytes'] / 1e6:7.1f} MB = {found['peak_bytes'] / found['bytes']:.2f} x what is written "
            f"({found['idle_bytes'] / 1e6:.0f} MB of it before any work)",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
