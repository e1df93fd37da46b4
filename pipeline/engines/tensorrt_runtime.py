"""One rank's TensorRT engines on its GPU: communicator, buffers, one CUDA graph around all of it.

Written against TensorRT 11 and unrun: it needs one GPU a rank. A contract test holds every TensorRT name used here
against the bindings installed.
"""

import ctypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.communication.distributed import all_gather
from pipeline.errors import CheckpointError, MissingRequirementError, RunError
from pipeline.export import folder as engine_folder
from pipeline.export.heads import torch_dtype
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt import module
from pipeline.export.tensorrt.graph import dimension_sizes
from pipeline.export.tensorrt.program import Program, play
from pipeline.models.greedy import best_of_ranks
from pipeline.models.placement import vocabulary_share

WARMUP_RUNS = 2  # before capture: TensorRT and NCCL allocate on their first runs


@dataclass
class Buffers:
    """Memory of one prompt shape, by tensor name, and the graph captured over it."""

    shape: tuple[int, int]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    graph: Any = None  # torch.cuda.CUDAGraph


class TensorRTEngine:
    """A built engine's rank, ready to run: every rank calls the same methods in the same order.

    `dist` must be initialised with NCCL on `device`. Raises CheckpointError for an engine that is incomplete or of
    another version, MissingRequirementError without a GPU, RunError where TensorRT refuses.
    """

    name = "tensorrt"

    def __init__(self, folder: Path, rank: int, device: torch.device, cuda_graph: bool = True) -> None:
        result = engine_folder.read(folder)
        if result.engine != "tensorrt" or result.rank_details is None:
            raise CheckpointError(f"{folder} holds an engine of kind {result.engine}, not tensorrt")
        trt = module.load(result.module)
        engine_folder.check_version(result, result.module, str(trt.__version__))
        if not torch.cuda.is_available():
            raise MissingRequirementError("a TensorRT engine runs on GPUs, one a rank; none is here")
        self.trt, self.device, self.cuda_graph = trt, device, cuda_graph
        self.mode = result.mode
        self.spec = EngineSpec.read(folder / SPEC)
        self.share = vocabulary_share(self.spec.model, self.spec.placement(rank))
        details = result.rank_details[rank]
        self.program = Program.read(details["program"])
        self.segments: list[dict[str, Any]] = details["segments"]
        self.logger = module.make_logger(trt)
        self.runtime = trt.Runtime(self.logger)
        self.engines = [self._load(folder / segment["file"]) for segment in self.segments]
        self.contexts = [engine.create_execution_context() for engine in self.engines]
        self.side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # low priority is the default
        self.main = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.buffers: Buffers | None = None
        if self.mode == "whole" and self.spec.tp_size > 1:
            self._join(self.contexts[0])

    def _load(self, path: Path) -> Any:
        engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise RunError(f"{path}: TensorRT could not load it: {'; '.join(self.logger.errors)[:500]}")
        return engine

    def _join(self, context: Any) -> None:
        """Hand NCCL's communicator to the context: blocks until every rank has, so all ranks do so at once."""
        if not context.set_communicator(communicator_capsule(self.device)):
            raise RunError(f"TensorRT refused the communicator: {'; '.join(self.logger.errors)[:500]}")

    def prefill(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        """Read a prompt and pick its first output token. Raises ValueError beyond the engine's profile."""
        batch, length = tokens.shape
        if batch > self.spec.max_batch_size or length > self.spec.max_input_len:
            raise ValueError(
                f"{batch} prompts of {length} tokens: the engine takes {self.spec.max_batch_size} of "
                f"{self.spec.max_input_len}"
            )
        if self.buffers is None or self.buffers.shape != (batch, length):
            self.buffers = self._prepare(batch, length)
        buffers = self.buffers
        self.main.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.main):
            buffers.tensors["tokens"].copy_(tokens)
            if buffers.graph is not None:
                buffers.graph.replay()
            else:
                self._forward(buffers)
        torch.cuda.current_stream(self.device).wait_stream(self.main)
        return buffers.tensors["first"]

    def _prepare(self, batch: int, length: int) -> Buffers:
        """Allocate every tensor between segments, tell the contexts, and capture one forward."""
        sizes = dimension_sizes(batch, length, 1)
        found = Buffers((batch, length))
        dtype = torch_dtype(self.spec.dtype)
        for segment in self.segments:
            for name, described in {**segment["inputs"], **segment["outputs"]}.items():
                shape = [sizes[size] if isinstance(size, str) else size for size in described["shape"]]
                kind = torch.int32 if name in ("tokens", "positions", "wanted") else dtype
                if name not in found.tensors:
                    found.tensors[name] = torch.zeros(shape, dtype=kind, device=self.device)
        if "positions" in found.tensors:  # of a model that embeds them
            found.tensors["positions"].copy_(torch.arange(length))
        if "wanted" in found.tensors:  # of a prompt that is not read in chunks
            found.tensors["wanted"].fill_(length - 1)
        for context, segment in zip(self.contexts, self.segments, strict=True):
            for name in segment["inputs"]:
                if not context.set_input_shape(name, tuple(found.tensors[name].shape)):
                    raise RunError(f"TensorRT refused the shape {tuple(found.tensors[name].shape)} of {name}")
            for name in [*segment["inputs"], *segment["outputs"]]:
                context.set_tensor_address(name, found.tensors[name].data_ptr())
            missing = context.infer_shapes()
            if missing:
                raise RunError(f"TensorRT misses the shapes of {', '.join(missing)}")
        if self.cuda_graph:
            found.graph = self._capture(found)
        return found

    def _capture(self, buffers: Buffers) -> Any:
        with torch.cuda.stream(self.main):
            for _ in range(WARMUP_RUNS):
                self._forward(buffers)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.main):
            self._forward(buffers)
        return graph

    def _forward(self, buffers: Buffers) -> None:
        """Issue the program on the main and the side stream, and pick the token that is likeliest over all ranks."""
        play(self.program, _Streams(self, buffers))
        logits = buffers.tensors["logits"][:, -1]  # (B, V / N)
        if self.spec.tp_size == 1:
            buffers.tensors["first"] = logits.argmax(-1)  # (B,)
        else:
            buffers.tensors["first"] = best_of_ranks(logits, self.share, all_gather)


class _Streams:
    """Plays a program: segments on the main stream, sums on the side stream, joined by events."""

    def __init__(self, engine: TensorRTEngine, buffers: Buffers) -> None:
        self.engine, self.tensors = engine, buffers.tensors
        self.works: dict[str, Any] = {}

    def run(self, segment: int) -> None:
        engine = self.engine
        if not engine.contexts[segment].execute_async_v3(engine.main.cuda_stream):
            raise RunError(f"{engine.segments[segment]['name']}: {'; '.join(engine.logger.errors)[:500]}")

    def start(self, source: str, result: str) -> None:
        engine = self.engine
        engine.side.wait_stream(engine.main)
        with torch.cuda.stream(engine.side):
            self.tensors[result].copy_(self.tensors[source])  # a copy: the source may still be a residual
            self.works[result] = dist.all_reduce(self.tensors[result], async_op=True)

    def wait(self, result: str) -> None:
        with torch.cuda.stream(self.engine.main):
            self.works.pop(result).wait()  # the main stream waits, not this process


def communicator_capsule(device: torch.device) -> Any:
    """torch's own ncclComm_t of the default group on `device`, as the capsule TensorRT takes."""
    dist.all_reduce(torch.zeros(1, device=device))  # torch makes its communicator at the first use
    assert dist.group.WORLD is not None
    pointer: int = dist.group.WORLD._get_backend(device)._comm_ptr()  # type: ignore[attr-defined]  # NCCL's alone
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(pointer, None, None)
