"""What a rank does between its commands: hold models, time them in turn, take them apart."""

import os
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from pipeline.benchmark.protocol import Rules, rotated, run_rounds
from pipeline.benchmark.ranks.memory import reset_peak, resident_bytes
from pipeline.benchmark.ranks.spans import SpanCommunicator, SpanRecorder, watched
from pipeline.benchmark.ranks.spec import RankSpec, Variant, variants
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.communication import BlockingCommunicator, Communicator, CountingCommunicator, SkippedCommunicator
from pipeline.communication.clock import clock_for
from pipeline.communication.transport import make_communicator
from pipeline.config import ModelConfig
from pipeline.engines.arena import arena_size, build_on_arena, make_arena
from pipeline.engines.torch import TorchEngine
from pipeline.models import Placement


class RankWorker:
    """One rank. `steps` counts forwards, for the heartbeat."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.spec, self.rank, self.steps = spec, rank, 0
        self.device = torch.device(spec.device, rank) if spec.device == "cuda" else torch.device("cpu")
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        torch.set_num_threads(spec.threads)
        if spec.cores:
            os.sched_setaffinity(0, spec.cores[rank])
        if spec.device == "cuda":
            torch.cuda.set_device(self.device)
        os.environ["GLOO_SOCKET_IFNAME"] = spec.interfaces[rank]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if spec.device == "cuda" else "gloo",
            store=FileStore(spec.store, spec.tp_size),
            rank=rank,
            world_size=spec.tp_size,
            timeout=timedelta(seconds=spec.timeout_s),
        )
        self.communicator: Communicator = make_communicator(spec.transport, self.device, spec.interfaces[rank])
        self.modes: dict[str, Communicator] = {
            "overlapped": self.communicator,
            "blocking": BlockingCommunicator(self.communicator),
            "skipped": SkippedCommunicator(spec.tp_size),
        }
        self.engines: dict[str, TorchEngine] = {}

    def do(self, command: dict[str, Any]) -> Any:
        """Carry out one command by name; its other keys are the arguments."""
        arguments = {key: value for key, value in command.items() if key not in ("id", "do")}
        return getattr(self, command["do"])(**arguments)

    def close(self) -> None:
        dist.destroy_process_group()

    def load(self, models: dict[str, dict[str, Any]], folders: dict[str, str], shared: bool = False) -> None:
        """Replace the engines: trained models read by slices, else random weights drawn on the shard.

        With `shared` all random weights lie in the same memory.
        """
        self.engines = {}
        placement = Placement(self.rank, self.spec.tp_size)
        configs = {architecture: ModelConfig.model_validate(raw) for architecture, raw in models.items()}
        arena = None
        if shared:
            elements = max(arena_size(config, placement) for config in configs.values())
            std = next(iter(configs.values())).init_std
            arena = make_arena(elements, std, self.spec.seed, self.device, self.dtype)
        for architecture, config in configs.items():
            if arena is not None:
                engine = TorchEngine(build_on_arena(config, placement, arena))
            elif architecture in folders:
                engine = TorchEngine.load(
                    Path(folders[architecture]), config, placement, device=self.device, dtype=self.dtype
                )
            else:
                engine = TorchEngine.build(config, placement, seed=self.spec.seed, device=self.device, dtype=self.dtype)
            self.engines[architecture] = engine
            self.steps += 1

    def measure(self, context: int, batch_size: int, rules: dict[str, Any]) -> dict[str, Any]:
        """Time every variant in turn, round after round, until the rules say enough.

        Samples are milliseconds, the maximum over ranks: all ranks return the same ones.
        """
        tokens = self._tokens(context, batch_size)
        configs = {name: engine.model.config for name, engine in self.engines.items()}
        by_key = {variant.key: variant for variant in variants(configs)}

        def agree(values: list[float]) -> list[float]:
            shared = torch.tensor(values, dtype=torch.float64)
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            return [float(value) for value in shared]

        rounds = run_rounds(list(by_key), lambda name: self._timed(by_key[name], tokens), agree, Rules(**rules))
        for engine in self.engines.values():
            engine.release_graphs()
        return asdict(rounds) | {"details": {name: self._details(name, tokens) for name in self.engines}}

    def instrument(self, context: int, batch_size: int, repeats: int) -> dict[str, Any]:
        """Forwards with a stopwatch at every part: milliseconds by kind, and the segments of the last one."""
        tokens = self._tokens(context, batch_size)
        found: dict[str, Any] = {name: {"kinds_ms": []} for name in self.engines}
        for _ in range(repeats):
            for name, engine in self.engines.items():
                recorder = SpanRecorder(clock_for(self.device))
                spans = SpanCommunicator(self.communicator, recorder)
                engine.communicator = spans
                engine.eager()
                self._barrier()
                with watched(engine.model, recorder, spans), recorder.span("other", "rest"):
                    engine.prefill(tokens)
                self.steps += 1
                found[name]["kinds_ms"].append(recorder.milliseconds_by_kind())
                self._barrier()  # the last sums have arrived everywhere
                segments = recorder.segments()
                found[name]["begin_ns"] = segments[0].begin_ns
                found[name]["segments"] = [(one.kind, one.name, one.begin_ns, one.end_ns) for one in segments]
                found[name]["collectives"] = spans.timed.spans_ns()
        return found

    def decode(self, context: int, batch_size: int, new_tokens: int, repeats: int) -> dict[str, Any]:
        """Milliseconds per step (maximum over ranks) of greedy decoding behind a prompt, rounds alternating."""
        tokens = self._tokens(context, batch_size)
        names = list(self.engines)
        rounds: dict[str, list[list[float]]] = {name: [] for name in names}
        for engine in self.engines.values():
            engine.communicator = self.communicator
            engine.keep_cache(batch_size, context + new_tokens + 1)
        for turn in range(repeats + 1):
            for name in rotated(names, turn):
                engine = self.engines[name]
                token = engine.prefill(tokens)
                steps = torch.zeros(new_tokens, dtype=torch.float64)
                for index in range(new_tokens):
                    self._barrier()
                    begun = time.perf_counter()
                    token = engine.decode(token)
                    self._synchronize()
                    steps[index] = (time.perf_counter() - begun) * 1e3
                    self.steps += 1
                dist.all_reduce(steps, dist.ReduceOp.MAX)
                if turn > 0:  # the first round warms up
                    rounds[name].append(steps.tolist())
        for engine in self.engines.values():
            engine.drop_cache()
        return rounds

    def link(self, payload_bytes: int, repeats: int) -> float:
        """Bits per second that one direction of the link between rank 0 and the last rank carries."""
        buffer = torch.zeros(payload_bytes // 4)
        mark = torch.zeros(1)
        last = self.spec.tp_size - 1
        best = float("inf")
        for _ in range(repeats):
            self._barrier()
            begun = time.perf_counter()
            if self.rank == 0:
                dist.send(buffer, last)
                dist.recv(mark, last)  # the last byte has arrived
            elif self.rank == last:
                dist.recv(buffer, 0)
                dist.send(mark, 0)
            best = min(best, time.perf_counter() - begun)
            self.steps += 1
        return payload_bytes * 8 / best

    def logits(self, architecture: str, tokens: list[list[int]], path: str) -> None:
        """Save the full logits, (B, T, V), of this rank: what every rank must agree on."""
        engine = self.engines[architecture]
        with torch.inference_mode():
            out = engine.model(torch.tensor(tokens, device=self.device), self.communicator)
        torch.save(out.float().cpu(), f"{path}.{self.rank}")

    def _tokens(self, context: int, batch_size: int) -> torch.Tensor:
        vocabulary = min(engine.model.config.vocab_size for engine in self.engines.values())
        generator = torch.Generator().manual_seed(self.spec.seed)
        return torch.randint(0, vocabulary, (batch_size, context), generator=generator).to(self.device)  # (B, T)

    def _timed(self, variant: Variant, tokens: torch.Tensor) -> tuple[float, float]:
        """(host, device) milliseconds of one forward on this rank, released by a barrier."""
        engine = self.engines[variant.architecture]
        engine.communicator = self.modes[variant.mode]
        if self.spec.cuda_graph and self.device.type == "cuda":
            engine.capture(tokens, variant.mode)
        self._barrier()
        taken = lap(lambda: engine.prefill(tokens), self.device)
        self.steps += 1
        return taken.host_ms, taken.device_ms

    def _details(self, name: str, tokens: torch.Tensor) -> dict[str, Any]:
        """Collectives, bytes and peak memory of one forward, and whether all ranks sampled the same token."""
        engine = self.engines[name]
        counting = CountingCommunicator(self.communicator)
        engine.communicator = counting
        engine.eager()
        self._barrier()
        before = reset_peak(self.device)
        sampled = engine.prefill(tokens).cpu()
        growth = max(0, resident_bytes(self.device, peak=True) - before)
        lowest, highest = sampled.clone(), sampled.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        self.steps += 1
        return {
            "collectives": counting.collectives,
            "bytes": counting.bytes,
            "peak_memory_bytes": _weight_bytes(engine) + growth,
            "ranks_agree": bool(torch.equal(lowest, highest)),
        }

    def _barrier(self) -> None:
        self._synchronize()
        dist.all_reduce(torch.zeros(1))

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _weight_bytes(engine: TorchEngine) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in engine.model.parameters())
