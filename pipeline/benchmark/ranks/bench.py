"""The engines of one rank that take turns: built, timed at a prompt, and what a forward takes beside time."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmark.protocol import Agree, Rounds, Rules, run_rounds
from pipeline.benchmark.ranks.memory import reset_peak, resident_bytes, return_memory
from pipeline.benchmark.ranks.spec import Mode, Variant
from pipeline.benchmark.ranks.stopwatch import lap
from pipeline.communication import Communicator, CountingCommunicator
from pipeline.config import ModelConfig
from pipeline.engines.arena import arena_size, build_on_arena, make_arena
from pipeline.engines.torch import TorchEngine
from pipeline.models import Placement, build_model
from pipeline.models.checkpoint import load_model


class Bench:
    """One rank's engines by architecture. `modes` holds what becomes of their collectives, by name.

    `barrier` releases all ranks at the same time; `steps` counts forwards, for the heartbeat.
    """

    def __init__(
        self,
        placement: Placement,
        device: torch.device,
        dtype: str,
        seed: int,
        cuda_graph: bool,
        modes: Mapping[Mode, Communicator],
        barrier: Callable[[], None] = lambda: None,
    ) -> None:
        self.placement, self.device, self.seed = placement, device, seed
        self.dtype: torch.dtype = getattr(torch, dtype)
        self.cuda_graph = cuda_graph and device.type == "cuda"
        self.modes, self.barrier = modes, barrier
        self.engines: dict[str, TorchEngine] = {}
        self.steps = 0

    def build(self, configs: Mapping[str, ModelConfig], folders: Mapping[str, str], shared: bool) -> None:
        """Replace the engines: trained models read by slices, else random weights drawn on the shard.

        Labels with the same model and weights have one engine. With `shared` all random weights lie in the same memory.
        """
        self.release()
        arena = None
        if shared:
            elements = max(arena_size(config, self.placement) for config in configs.values())
            std = next(iter(configs.values())).init_std
            arena = make_arena(elements, std, self.seed, self.device, self.dtype)
        where: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        made: dict[tuple[str, str | None], TorchEngine] = {}
        for architecture, config in configs.items():
            same = (config.model_dump_json(), folders.get(architecture))
            if same in made:
                self.engines[architecture] = made[same]
                continue
            if arena is not None:
                model = build_on_arena(config, self.placement, arena)
            elif architecture in folders:
                model = load_model(Path(folders[architecture]), config, self.placement, **where)
            else:
                model = build_model(config, self.placement, self.seed, **where)
            self.engines[architecture] = made[same] = TorchEngine(model)
            self.steps += 1

    def release(self) -> None:
        """Give the engines' memory back."""
        self.engines = {}
        return_memory(self.device)

    def carrier(self, architecture: str, mode: Mode = "overlapped") -> Communicator:
        """What carries the sums of a label's forward."""
        return self.modes[mode]

    def tokens(self, context: int, batch_size: int) -> Tensor:  # (B, T)
        vocabulary = min(engine.model.config.vocab_size for engine in self.engines.values())
        return random_prompt(vocabulary, context, batch_size, self.seed).to(self.device)

    def rounds(self, variants: Sequence[Variant], tokens: Tensor, agree: Agree, rules: Rules) -> Rounds:
        """Time every variant in turn, round after round, until the rules say enough."""
        by_key = {variant.key: variant for variant in variants}
        seldom = {variant.key for variant in variants if variant.is_diagnostic}
        found = run_rounds(list(by_key), lambda key: self._timed(by_key[key], tokens), agree, rules, seldom)
        for engine in self.engines.values():
            engine.release_graphs()
        return found

    def _timed(self, variant: Variant, tokens: Tensor) -> tuple[float, float]:
        """(host, device) milliseconds of one forward on this rank, released by a barrier."""
        engine = self.ready(variant, tokens)
        self.barrier()
        taken = lap(lambda: engine.prefill(tokens), self.device)
        self.steps += 1
        return taken

    def ready(self, variant: Variant, tokens: Tensor) -> TorchEngine:
        """A variant's engine as its rounds run it: with what carries its sums, as a CUDA graph where one is wanted."""
        engine = self.engines[variant.architecture]
        engine.communicator = self.carrier(variant.architecture, variant.mode)
        if self.cuda_graph:
            engine.capture(tokens, variant.mode)
        return engine

    def details(self, variant: Variant, tokens: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Collectives, bytes and peak memory of one forward, and the tokens (B,) it sampled."""
        engine = self.engines[variant.architecture]
        counting = CountingCommunicator(self.carrier(variant.architecture, variant.mode))
        engine.communicator = counting
        self.barrier()
        before = reset_peak(self.device)
        sampled = engine.prefill(tokens).cpu()
        growth = max(0, resident_bytes(self.device, peak=True) - before)
        self.steps += 1
        weights = sum(parameter.numel() * parameter.element_size() for parameter in engine.model.parameters())
        facts = {"collectives": counting.collectives, "bytes": counting.bytes, "peak_memory_bytes": weights + growth}
        return facts, sampled


def random_prompt(vocab_size: int, context: int, batch_size: int, seed: int) -> Tensor:  # (B, T)
    """The same tokens for every engine that is timed at this prompt."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, (batch_size, context), generator=generator)
