"""What a rank does between its commands: hold models, time them in turn, take them apart."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from pipeline.benchmark.energy import meter_of
from pipeline.benchmark.protocol import Rules, rotated
from pipeline.benchmark.ranks import serving
from pipeline.benchmark.ranks.bench import Bench
from pipeline.benchmark.ranks.peers import Peers
from pipeline.benchmark.ranks.spans import SpanCommunicator, SpanRecorder, watched
from pipeline.benchmark.ranks.spec import Mode, RankSpec, Variant, variants
from pipeline.benchmark.ranks.stopwatch import matrix_flops_per_s
from pipeline.communication import BlockingCommunicator, Communicator, SkippedCommunicator
from pipeline.communication.clock import clock_for
from pipeline.communication.delayed import DelayedCommunicator
from pipeline.communication.transport import make_communicator, over_wire, steps_of, transport_name
from pipeline.config import ModelConfig
from pipeline.config.benchmark import WIRES, wire_of
from pipeline.models import Placement


class RankWorker(Bench):
    """One rank: a bench whose engines talk to those of the other ranks."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.rank, self.last = rank, spec.tp_size - 1
        self.peers = Peers(spec, rank)
        self.meter = meter_of(self.peers.device, rank)
        self.transport = transport_name(spec.transport, spec.device, spec.tp_size)
        self.plain = make_communicator(spec.transport, self.peers.device, spec.interfaces[rank])
        self.delay(0.0, None)
        modes: dict[Mode, Communicator] = {"skipped": SkippedCommunicator(spec.tp_size)}
        placement = Placement(rank, spec.tp_size)
        super().__init__(
            placement, self.peers.device, spec.dtype, spec.seed, spec.cuda_graph, modes, self.peers.barrier
        )

    def load(self, models: dict[str, dict[str, Any]], folders: dict[str, str], shared: bool = False) -> None:
        """`build` with configurations as JSON data."""
        self.build({name: ModelConfig.model_validate(raw) for name, raw in models.items()}, folders, shared)

    def delay(self, delay_s: float, bits_per_s: float | None) -> None:
        """From now on sums arrive by the model of a link with this delay; 0: when they really do."""
        self.by_wire: dict[str, Communicator] = {}
        for wire in WIRES if self.transport != "nccl" else WIRES[:1]:
            carrier = over_wire(self.plain, wire)
            steps = steps_of(self.transport, wire, self.plain.world_size)
            self.by_wire[wire] = DelayedCommunicator(carrier, delay_s, bits_per_s, steps) if delay_s else carrier

    def carrier(self, architecture: str, mode: Mode = "overlapped") -> Communicator:
        if mode == "skipped":
            return self.modes[mode]
        carrier = self.by_wire[wire_of(architecture)]
        return BlockingCommunicator(carrier) if mode == "blocking" else carrier

    def matrix_rate(self) -> float:
        """FLOP/s of large matrix products on this rank's own threads, all ranks at once."""
        return matrix_flops_per_s(self.device, self.dtype, self.barrier)

    def measure(
        self, context: int, batch_size: int, rules: dict[str, Any], with_details: bool = True
    ) -> dict[str, Any]:
        """Rounds of every variant; on request details by architecture, with whether all ranks sampled the same tokens.

        Samples are milliseconds, the maximum over ranks: all ranks return the same ones.
        """
        tokens = self.tokens(context, batch_size)
        timed = variants({name: engine.model.config for name, engine in self.engines.items()})
        rounds = self.rounds(timed, tokens, self.peers.maximum, Rules(**rules))
        if not with_details:
            return asdict(rounds)
        details = {}
        for name in self.engines:
            facts, sampled = self.details(Variant(name, "overlapped"), tokens)
            details[name] = facts | {"ranks_agree": self.peers.agree_on(sampled)}
        (counts,) = self.peers.maximum([0.0 if self.meter is None else 1.0])
        return asdict(rounds) | {"details": details, "counts_energy": bool(counts)}

    def energy(self, context: int, batch_size: int, repeats: dict[str, int]) -> dict[str, float]:
        """Joules of one prefill that this rank's meter counted, by architecture; 0 where it has none."""
        tokens = self.tokens(context, batch_size)
        found = {}
        for name, count in repeats.items():
            engine = self.ready(Variant(name, "overlapped"), tokens)
            self.barrier()
            before = self.meter.joules() if self.meter else 0.0
            for _ in range(count):
                engine.prefill(tokens).tolist()
                self.steps += 1
            self.barrier()
            found[name] = ((self.meter.joules() if self.meter else 0.0) - before) / count
            engine.release_graphs()
        return found

    def instrument(self, context: int, batch_size: int, repeats: int) -> dict[str, Any]:
        """Forwards with a stopwatch at every part: milliseconds by kind, and the segments of the last one."""
        tokens = self.tokens(context, batch_size)
        found: dict[str, Any] = {name: {"kinds_ms": []} for name in self.engines}
        for _ in range(repeats):
            for name, engine in self.engines.items():
                recorder = SpanRecorder(clock_for(self.device))
                spans = SpanCommunicator(self.carrier(name), recorder)
                engine.communicator = spans
                self.barrier()
                with watched(engine.model, recorder, spans), recorder.span("other", "rest"):
                    engine.prefill(tokens)
                self.steps += 1
                found[name]["kinds_ms"].append(recorder.milliseconds_by_kind())
                self.barrier()  # the last sums have arrived everywhere
                segments = recorder.segments()
                found[name]["begin_ns"] = segments[0].begin_ns
                found[name]["segments"] = [(one.kind, one.name, one.begin_ns, one.end_ns) for one in segments]
                found[name]["collectives"] = spans.timed.spans_ns()
        return found

    def decode(self, context: int, batch_size: int, new_tokens: int, repeats: int) -> dict[str, Any]:
        """Milliseconds per step (maximum over ranks) of greedy decoding behind a prompt, rounds alternating."""
        tokens = self.tokens(context, batch_size)
        names = list(self.engines)
        rounds: dict[str, list[list[float]]] = {name: [] for name in names}
        for engine in self.engines.values():
            engine.keep_cache(batch_size, context + new_tokens + 1)
        for turn in range(repeats + 1):
            for name in rotated(names, turn):
                engine = self.engines[name]
                engine.communicator = self.carrier(name)
                token = engine.prefill(tokens)
                steps = []
                for _ in range(new_tokens):
                    self.barrier()
                    begun = time.perf_counter()
                    token = engine.decode(token)
                    self.peers.synchronize()
                    steps.append((time.perf_counter() - begun) * 1e3)
                    self.steps += 1
                slowest = self.peers.maximum(steps)
                if turn > 0:  # the first round warms up
                    rounds[name].append(slowest)
        for engine in self.engines.values():
            engine.drop_cache()
        return rounds

    def serve(self, context: int, concurrency: int, requests_per_client: int, new_tokens: int) -> dict[str, Any]:
        """Clients served at a time, an architecture after the other, as `serving.serve` answers, by architecture."""
        asked = serving.drawn_tokens(concurrency * requests_per_client, new_tokens, self.seed)
        prompts = self.tokens(context, len(asked))
        found = {}
        for name in rotated(list(self.engines), concurrency):
            engine = self.engines[name]
            engine.communicator = self.carrier(name)
            found[name] = serving.serve(engine, prompts, asked, concurrency, self._step, self.peers.maximum)
        return found

    def _step(self, work: Callable[[], None]) -> float:
        """Milliseconds of work that ends on the host, released by a barrier."""
        self.barrier()
        begun = time.perf_counter()
        work()
        self.steps += 1
        return (time.perf_counter() - begun) * 1e3

    def link(self, payload_bytes: int, repeats: int) -> float:
        """Bits per second that one direction of the link between rank 0 and the last rank carries."""
        buffer = torch.zeros(payload_bytes // 4)
        mark = torch.zeros(1)
        best = float("inf")
        for _ in range(repeats):
            self.barrier()
            begun = time.perf_counter()
            if self.rank == 0:
                dist.send(buffer, self.last)
                dist.recv(mark, self.last)  # the last byte has arrived
            elif self.rank == self.last:
                dist.recv(buffer, 0)
                dist.send(mark, 0)
            best = min(best, time.perf_counter() - begun)
            self.steps += 1
        return payload_bytes * 8 / best

    @torch.inference_mode()
    def wire_errors(self, architecture: str, windows: list[list[int]], wires: list[str]) -> dict[str, dict[str, Any]]:
        """By wire, plain sums included: total nats of each window, and how far its logits are from plain sums'.

        Windows are T + 1 tokens each. Sums over all positions and tokens: squared_error, squares of the plain logits;
        `agreeing` counts positions with the same likeliest token, `largest` is the largest difference.
        """
        model = self.engines[architecture].model
        found: dict[str, dict[str, Any]] = {
            wire: {"losses": [], "lengths": [], "squared_error": 0.0, "squares": 0.0, "largest": 0.0, "agreeing": 0}
            for wire in (WIRES[0], *wires)
        }
        for window in windows:
            inputs, targets = torch.tensor(window[:-1]), torch.tensor(window[1:])
            plain = None
            for wire, sums in found.items():
                logits = model(inputs[None], self.by_wire[wire])[0].double()  # (T, V)
                plain = logits if plain is None else plain
                sums["losses"].append(float(F.cross_entropy(logits, targets, reduction="sum")))
                sums["lengths"].append(len(targets))
                sums["squared_error"] += float((logits - plain).square().sum())
                sums["squares"] += float(plain.square().sum())
                sums["largest"] = max(sums["largest"], float((logits - plain).abs().max()))
                sums["agreeing"] += int((logits.argmax(-1) == plain.argmax(-1)).sum())
                self.steps += 1
        return found

    def logits(self, architecture: str, tokens: list[list[int]], path: str) -> None:
        """Save the full logits, (B, T, V), of this rank: what every rank must agree on."""
        engine = self.engines[architecture]
        with torch.inference_mode():
            out = engine.model(torch.tensor(tokens, device=self.device), self.carrier(architecture))
        torch.save(out.float().cpu(), f"{path}.{self.rank}")
