"""Make any engine: check first, skip what is unchanged, build beside the old one, put it in place whole."""

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline import files
from pipeline.config.engine import EngineConfig
from pipeline.config.model import ModelConfig
from pipeline.export import folder as engine_folder
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.weights import WeightSource, source_of
from pipeline.models import count
from pipeline.models.placement import head_dim
from pipeline.provenance import fingerprint
from pipeline.results.engine import EngineResult

Say = Callable[[str], None]


class Maker(Protocol):
    """One kind of engine. Constructing it checks everything that can be checked before any work."""

    module: str
    version: str
    target: str | None
    status: str

    def write(self, source: WeightSource, folder: Path, say: Say) -> dict[str, Any]:
        """Write all files into `folder`; returns what engine.json says beside the common keys."""
        ...


@dataclass(frozen=True)
class Made:
    """What engine.json says but its provenance, and whether an earlier build was kept."""

    result: EngineResult
    reused: bool


def make(
    model: ModelConfig,
    engine: EngineConfig,
    trained: Path,
    folder: Path,
    say: Say,
    code: dict[str, str] | None = None,
    *,
    scale: str,
) -> Made:
    """Build `model` as `engine` says into `folder`; what other `code` (digests of its rooms) built is built anew.

    Raises ConfigError, MissingRequirementError or CheckpointError before any work, RunError when a build fails;
    then `folder` is as it was.
    """
    spec = EngineSpec.of(model, engine)
    maker = maker_of(spec, engine)
    source = source_of(model, engine.weights, trained)
    key = key_of(spec, source, maker, engine, code)
    if engine_folder.is_current(folder, key):
        return Made(engine_folder.read(folder), True)

    files.check_replaceable(folder)
    files.check_writable(folder.parent, _bytes_needed(spec), hint="paths.engines")
    with files.atomic_path(folder) as temporary:
        temporary.mkdir()
        begun = time.perf_counter()
        details = maker.write(source, temporary, say)
        files.write_json(temporary / SPEC, spec.body())
        sizes = engine_folder.sizes(temporary)
        collectives = count.collectives(model).total if spec.tp_size > 1 else 0
        result = EngineResult(
            kind="measured",
            model=model.name,
            architecture=model.architecture,
            scale=scale,
            engine=engine.name,
            ranks=spec.tp_size,
            module=maker.module,
            version=maker.version,
            target=maker.target,
            mode=spec.mode,
            dtype=spec.dtype,
            head_dim=spec.head_dim,
            weights=source.kind,
            status=maker.status,
            engine_format=engine_folder.FORMAT,
            key=key,
            spec=spec.body(),
            sizes=sizes,
            size_bytes=sum(sizes.values()),
            build_s=time.perf_counter() - begun,
            **{"collectives": collectives, **details},
        )
    return Made(result, False)


def key_of(
    spec: EngineSpec, source: WeightSource, maker: Maker, engine: EngineConfig, code: dict[str, str] | None = None
) -> str:
    """Names everything that an engine's bytes depend on: what is unchanged is not built again."""
    where = [engine.environment, engine.environment_path] if engine.name == "tensorrt_llm" else []
    made_by = [maker.module, maker.version, maker.target]
    return fingerprint(spec.identity(), source.identity(), *made_by, engine_folder.FORMAT, *where, code)


def missing(engine: EngineConfig) -> list[str]:
    """What this machine lacks to make this kind of engine, as far as can be told without importing anything."""
    if engine.name != "tensorrt" or importlib.util.find_spec(engine.module):
        return []
    return [
        f"engine=tensorrt needs the Python module {engine.module}: pip install -e '.[tensorrt]', "
        "or choose engine=checkpoint"
    ]


def installed_version(module: str) -> str | None:
    """The version of a Python module that engines are built by, told without importing it; None where it is not here.

    A module's version is that of its package: those of TensorRT, TensorRT-RTX and PyTorch agree.
    """
    if not module.isidentifier() or importlib.util.find_spec(module) is None:
        return None
    packages = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(packages[0]) if packages else None


def maker_of(spec: EngineSpec, engine: EngineConfig) -> Maker:
    """What makes this kind of engine; raises where it cannot be made here."""
    if spec.engine == "tensorrt":
        from pipeline.export.tensorrt.build import TensorRTMaker

        return TensorRTMaker(spec)
    if spec.engine == "checkpoint":
        from pipeline.export.tensorrt_llm.checkpoint import CheckpointMaker

        return CheckpointMaker(spec)
    if spec.engine == "huggingface":
        from pipeline.export.huggingface.export import HuggingFaceMaker

        return HuggingFaceMaker(spec)
    if spec.engine == "tensorrt_llm":
        from pipeline.export.tensorrt_llm.maker import TensorRTLLMMaker

        return TensorRTLLMMaker(spec, engine)
    return TorchMaker()


class TorchMaker:
    """The torch engine is the trained model itself: its description names the weights, and no file is written."""

    module = "torch"
    target: str | None = None
    status = "runs the trained model as it is; nothing is built"

    def __init__(self) -> None:
        self.version = importlib.metadata.version("torch")

    def write(self, source: WeightSource, folder: Path, say: Say) -> dict[str, Any]:
        return {}


def _bytes_needed(spec: EngineSpec) -> int:
    """Bytes that all ranks' files take at most, with some room: weights twice."""
    size = count.BYTES[spec.dtype]
    ranks = range(spec.tp_size)
    widened = spec.head_dim / head_dim(spec.model)
    return int(2 * widened * size * sum(count.parameters(spec.model, spec.placement(rank)) for rank in ranks))
