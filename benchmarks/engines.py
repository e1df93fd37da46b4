"""What engines cost here: seconds, bytes and peak memory of builds and exports. Each row is a process of its own.

    python benchmarks/engines.py                builds of demo and 124M ranks, exports of 124M, 760M and 6.7B
    python benchmarks/engines.py --json FILE    also as JSON
    python benchmarks/engines.py export kraken_6_7b_4way    one row

Exports of trained weights read a sparse file of the model's true size: all zeros, no disk taken. Memory is the
process's peak above what it held before the work. All numbers are measured here, but `bound`, which is calculated.
"""

import json
import math
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.export.spec import EngineSpec

BUILDS = ("demo_standard", "demo_kraken_4way", "standard_124m", "parallel_124m", "kraken_124m_4way", "ladder_124m")
EXPORTS = (
    "kraken_124m_4way",
    "standard_124m",
    "kraken_760m_4way",
    "standard_760m",
    "kraken_6_7b_4way",
    "standard_6_7b",
)


def sparse_model(folder: Path, name: str) -> None:
    """A finished model's folder with weights of the true size that take no disk: the file is one hole."""
    from pipeline import files
    from pipeline.compose import model_config
    from pipeline.models import build_model

    config = model_config(name)
    header, offset = {}, 0
    for key, parameter in build_model(config, seed=None, device="meta").named_parameters():
        end = offset + 4 * parameter.numel()
        header[key] = {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    files.write_json(folder / "config.json", {"model": config.model_dump(mode="json")})


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_export(name: str, folder: Path) -> dict[str, Any]:
    """Export rank 0 of 4 in float16 from the sparse model in `folder`."""
    import torch

    from pipeline.compose import model_config
    from pipeline.config.engine import EngineConfig
    from pipeline.export.spec import EngineSpec
    from pipeline.export.tensorrt_llm import checkpoint
    from pipeline.export.weights import TrainedSource

    torch.set_num_threads(1)
    spec = EngineSpec.of(model_config(name), EngineConfig.model_validate({"name": "checkpoint", "tp_size": 4}))
    source = TrainedSource(folder, spec.model)
    _warm_up(folder / "small")  # imports, meta models and torch's first calls are no part of the work
    before, begun = peak_bytes(), time.perf_counter()
    size = checkpoint.export_rank(spec, source, folder, 0, torch.float16)
    return {
        "work": "export",
        "model": name,
        "seconds": time.perf_counter() - begun,
        "rank_bytes": size,
        "peak_bytes": peak_bytes() - before,
        "peak_over_rank": (peak_bytes() - before) / size,
        "bound": working_bytes(spec) / size,
    }


def _warm_up(folder: Path) -> None:
    """One export of a demo model: what Python and torch load on their first calls is loaded then."""
    import torch

    from pipeline.compose import model_config
    from pipeline.config.engine import EngineConfig
    from pipeline.export.spec import EngineSpec
    from pipeline.export.tensorrt_llm import checkpoint
    from pipeline.export.weights import TrainedSource

    sparse_model(folder, "demo_standard")
    config = model_config("demo_standard")
    spec = EngineSpec.of(config, EngineConfig.model_validate({"name": "checkpoint", "tp_size": 4}))
    checkpoint.export_rank(spec, TrainedSource(folder, config), folder, 0, torch.float16)
    working_bytes(spec)


def rank_bytes(spec: "EngineSpec", rank: int = 0) -> int:
    """Bytes of one rank's file without its header, from shapes alone."""
    from pipeline.export.heads import torch_dtype
    from pipeline.export.tensorrt_llm.layout import entries
    from pipeline.models import build_model

    names = dict(build_model(spec.model, spec.placement(rank), seed=None, device="meta").named_parameters())
    size = torch_dtype(spec.dtype).itemsize
    return sum(math.prod(entry.shape) * size for entry in entries(spec, rank, names).values())


def working_bytes(spec: "EngineSpec") -> int:
    """An upper bound of what an export of a trained model holds at a time, from shapes alone.

    A table comes in blocks: the last one, the next, and each converted. A matrix comes whole as float32, then as
    its part, padded, converted and turned: four copies of the part at most.
    """
    from pipeline.export.tensor_file import BLOCK_BYTES
    from pipeline.models import build_model
    from pipeline.models.placement import has_ways, head_dim
    from pipeline.models.shard import REPLICATED

    whole = dict(build_model(spec.model, seed=None, device="meta").named_parameters())
    local = dict(build_model(spec.model, spec.placement(0), seed=None, device="meta").named_parameters())
    widened = spec.head_dim / head_dim(spec.model)
    apart = has_ways(spec.model)  # ways are read slice by slice, Megatron's parts cut from wholes
    most = 3 * BLOCK_BYTES
    for name, parameter in local.items():
        if name not in REPLICATED:
            read = parameter if apart else whole[name]
            most = max(most, 4 * (read.numel() + int(4 * widened * parameter.numel())))
    return most


def measure_build(name: str, folder: Path) -> dict[str, Any]:
    """Build rank 0 of 4 for sm80 in float16 with random weights."""
    import torch

    from pipeline.compose import compose
    from pipeline.export.spec import EngineSpec
    from pipeline.export.tensorrt import build, module
    from pipeline.export.weights import RandomSource

    torch.set_num_threads(1)
    config = compose([f"model={name}", "engine=tensorrt", "engine.tp_size=4"])
    spec = EngineSpec.of(config.model, config.engine)
    trt = module.load(spec.module)
    before = peak_bytes()
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    found = build.build_rank(trt, spec, RandomSource(config.model), 0, folder)
    return {
        "work": "build",
        "model": name,
        "seconds": found["build_seconds"],
        "cpu_seconds": resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu,
        "rank_bytes": found["bytes"],
        "peak_bytes": peak_bytes() - before,
        "process_peak_bytes": peak_bytes(),
        "layers": found["layers"],
        "collectives": found["collectives"],
    }


def apart(work: str, name: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="engines-") as scratch:
        if work == "export":
            sparse_model(Path(scratch), name)
        command = [sys.executable, __file__, "--one", work, name, scratch]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: list[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if arguments[:1] == ["--one"]:
        work, name, folder = arguments[1:]
        measured = measure_export(name, Path(folder)) if work == "export" else measure_build(name, Path(folder))
        print(json.dumps(measured))
        return
    rows = []
    chosen = (("build", BUILDS), ("export", EXPORTS))
    if arguments and arguments[0] in ("build", "export"):
        chosen = ((arguments[0], tuple(arguments[1:])),)
    for work, names in chosen:
        for name in names:
            rows.append(apart(work, name))
            row = rows[-1]
            ratio = f", {row['peak_over_rank']:.2f} of the rank (bound {row['bound']:.2f})" if work == "export" else ""
            print(
                f"{work:7}{name:20}{row['seconds']:7.1f} s {row['rank_bytes'] / 1e6:9.1f} MB written, "
                f"{row['peak_bytes'] / 1e6:8.1f} MB held{ratio}",
                flush=True,
            )
    if arguments[:1] == ["--json"]:
        Path(arguments[1]).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
