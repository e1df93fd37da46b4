"""One rank that times engines built beforehand: python -m pipeline.benchmark.built.rank SPEC RANK.

The rounds, their order and the stopping rule are those of every other measurement. Unrun: needs one GPU a rank.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.benchmark.protocol import Rules, run_rounds
from pipeline.benchmark.ranks import rank as rank_process
from pipeline.benchmark.ranks.bench import random_prompt
from pipeline.benchmark.ranks.peers import Peers
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.engines.tensorrt_runtime import TensorRTEngine


class EngineWorker:
    """Holds one rank's engines, one an architecture. `steps` counts forwards, for the heartbeat."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.spec, self.rank, self.steps = spec, rank, 0
        self.peers = Peers(spec, rank)
        self.engines: dict[str, TensorRTEngine] = {}

    def load(self, folders: dict[str, str]) -> None:
        """Load this rank's engine of every architecture; all ranks do so at once, as `set_communicator` wants."""
        self.engines = {}
        for architecture, folder in folders.items():
            engine = TensorRTEngine(Path(folder), self.rank, self.peers.device, self.spec.cuda_graph)
            self.engines[architecture] = engine
            self.steps += 1

    def measure(self, context: int, batch_size: int, rules: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds of every engine over the rounds, the maximum over ranks, and whether ranks agree."""
        vocabulary = min(engine.spec.model.vocab_size for engine in self.engines.values())
        tokens = random_prompt(vocabulary, context, batch_size, self.spec.seed).to(self.peers.device)

        def timed(name: str) -> tuple[float, float]:
            self.peers.barrier()
            taken = lap(lambda: self.engines[name].prefill(tokens), self.peers.device)
            self.steps += 1
            return taken

        rounds = run_rounds(list(self.engines), timed, self.peers.maximum, Rules(**rules))
        agreed = {name: self.peers.agree_on(engine.prefill(tokens).cpu()) for name, engine in self.engines.items()}
        return asdict(rounds) | {"ranks_agree": agreed}


if __name__ == "__main__":
    raise SystemExit(rank_process.main(sys.argv[1:], EngineWorker))
