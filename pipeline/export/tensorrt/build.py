"""From a spec and weights to serialised engines: a builder, a profile and a target for every segment."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import RunError
from pipeline.export.heads import torch_dtype
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt import module
from pipeline.export.tensorrt.description import Ranges, describe_segment, dimension_ranges, profile_shapes
from pipeline.export.tensorrt.graph import Graph, Segment
from pipeline.export.tensorrt.layers import Layers
from pipeline.export.tensorrt.play import write
from pipeline.export.weights import WeightSource
from pipeline.models import local_shape


@dataclass(frozen=True)
class Written:
    """A rank's networks and what must outlive them until they are built."""

    graph: Graph
    builder: Any
    logger: Any


def write_networks(trt: Any, spec: EngineSpec, source: WeightSource, rank: int) -> Written:
    """The network definitions of one rank, not yet built."""
    logger = module.make_logger(trt)
    builder = module.make_builder(trt, logger)
    placement = spec.placement(rank)
    weights = source.rank(placement, spec.head_dim, torch_dtype(spec.dtype))
    graph = Graph(trt, builder, spec.tp_size, spec.mode, spec.dtype)
    write(graph, Layers(graph, spec.model, local_shape(spec.model, placement), spec.head_dim, weights), placement)
    return Written(graph, builder, logger)


def build_rank(trt: Any, spec: EngineSpec, source: WeightSource, rank: int, folder: Path) -> dict[str, Any]:
    """Write one rank's engines into `folder`; returns its description. Raises RunError where TensorRT fails."""
    begun = time.perf_counter()
    written = write_networks(trt, spec, source, rank)
    defined = time.perf_counter()
    ranges = dimension_ranges(spec, written.graph.least_tokens)
    segments = []
    for index, segment in enumerate(written.graph.segments):
        name = f"rank{rank}.engine" if spec.mode == "whole" else f"rank{rank}-{index:03d}-{segment.name}.engine"
        started = time.perf_counter()
        plan = _serialise(trt, spec, written, segment, ranges)
        (folder / name).write_bytes(memoryview(plan))
        segments.append(
            describe_segment(segment, ranges)
            | {"file": name, "bytes": int(plan.nbytes), "build_seconds": time.perf_counter() - started}
        )
    return {
        "rank": rank,
        "segments": segments,
        "profile": {name: list(sizes) for name, sizes in ranges.items()},
        "program": written.graph.program.body(),
        "collectives": written.graph.collectives,
        "layers": sum(one["layers"] for one in segments),
        "bytes": sum(one["bytes"] for one in segments),
        "define_seconds": defined - begun,
        "build_seconds": time.perf_counter() - begun,
    }


class TensorRTMaker:
    """Builds one engine a rank, or one a segment. Constructing it loads TensorRT and checks the target."""

    status = "built; not run: loading it needs GPUs, one a rank"

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.trt = module.load(spec.module)
        self.target: str | None = module.target_of(self.trt, spec.target)
        self.module, self.version = spec.module, str(self.trt.__version__)

    def write(self, source: WeightSource, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """All ranks' engines, one rank in memory at a time, and a description of each. Raises RunError."""
        ranks = []
        for rank in range(self.spec.tp_size):
            one = build_rank(self.trt, self.spec, source, rank, folder)
            ranks.append(one)
            say(
                f"rank {rank}: {len(one['segments'])} engine(s), {one['bytes'] / 1e6:.1f} MB, "
                f"{one['layers']} layers, {one['collectives']} collectives, {one['build_seconds']:.1f} s"
            )
        return {
            **{key: ranks[0][key] for key in ("collectives", "layers", "profile")},
            "inputs": "tokens (B, T) int32, positions (T) int32, wanted (n) int32: positions whose logits are wanted",
            "outputs": "logits (B, n, V / N): a rank's share of the vocabulary, in the order of ranks",
            "rank_details": ranks,
        }


def _serialise(trt: Any, spec: EngineSpec, written: Written, segment: Segment, ranges: Ranges) -> Any:
    config = written.builder.create_builder_config()
    if hasattr(config, "set_compute_capability"):  # tensorrt_rtx builds ahead of time; tensorrt for the GPU it sees
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, spec.target.upper()), 0)
    profile = written.builder.create_optimization_profile()
    for name, (low, usual, high) in profile_shapes(segment, ranges).items():
        profile.set_shape(name, low, usual, high)
    config.add_optimization_profile(profile)
    plan = written.builder.build_serialized_network(segment.network, config)
    if plan is None:
        raise RunError(f"{trt.__name__} could not build {segment.name}: {'; '.join(written.logger.errors)[:500]}")
    return plan
