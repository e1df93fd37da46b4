"""One rank that times engines built beforehand: python -m pipeline.benchmark.built.rank SPEC RANK.

The rounds, their order and the stopping rule are those of every other measurement. Unrun: needs one GPU a rank.
"""

import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from pipeline.benchmark.protocol import Rules, run_rounds
from pipeline.benchmark.ranks import rank as rank_process
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.engines.tensorrt_runtime import TensorRTEngine


class EngineWorker:
    """Holds one rank's engines, one an architecture. `steps` counts forwards, for the heartbeat."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.spec, self.rank, self.steps = spec, rank, 0
        self.device = torch.device("cuda", rank)
        torch.cuda.set_device(self.device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl",
            store=FileStore(spec.store, spec.tp_size),
            rank=rank,
            world_size=spec.tp_size,
            timeout=timedelta(seconds=spec.timeout_s),
        )
        self.engines: dict[str, TensorRTEngine] = {}

    def do(self, command: dict[str, Any]) -> Any:
        """Carry out one command by name; its other keys are the arguments."""
        arguments = {key: value for key, value in command.items() if key not in ("id", "do")}
        return getattr(self, command["do"])(**arguments)

    def close(self) -> None:
        dist.destroy_process_group()

    def load(self, folders: dict[str, str]) -> None:
        """Load this rank's engine of every architecture; all ranks do so at once, as `set_communicator` wants."""
        self.engines = {}
        for architecture, folder in folders.items():
            engine = TensorRTEngine(Path(folder), self.rank, self.device, self.spec.cuda_graph)
            self.engines[architecture] = engine
            self.steps += 1

    def measure(self, context: int, batch_size: int, rules: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds of every engine over the rounds, the maximum over ranks, and whether ranks agree."""
        vocabulary = min(engine.spec.model.vocab_size for engine in self.engines.values())
        generator = torch.Generator().manual_seed(self.spec.seed)
        tokens = torch.randint(0, vocabulary, (batch_size, context), generator=generator).to(self.device)  # (B, T)

        def timed(name: str) -> tuple[float, float]:
            self._barrier()
            taken = lap(lambda: self.engines[name].prefill(tokens), self.device)
            self.steps += 1
            return taken.host_ms, taken.device_ms

        def agree(values: list[float]) -> list[float]:
            shared = torch.tensor(values, dtype=torch.float64)
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            return [float(value) for value in shared]

        rounds = run_rounds(list(self.engines), timed, agree, Rules(**rules))
        return asdict(rounds) | {"ranks_agree": {name: self._agrees(name, tokens) for name in self.engines}}

    def _agrees(self, name: str, tokens: torch.Tensor) -> bool:
        sampled = self.engines[name].prefill(tokens).cpu()
        lowest, highest = sampled.clone(), sampled.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return bool(torch.equal(lowest, highest))

    def _barrier(self) -> None:
        torch.cuda.synchronize(self.device)
        dist.all_reduce(torch.zeros(1))


if __name__ == "__main__":
    raise SystemExit(rank_process.main(sys.argv[1:], EngineWorker))
