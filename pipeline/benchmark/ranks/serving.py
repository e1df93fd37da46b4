"""Several clients at a time on one model: which forward comes next, and what each request waited.

The loop is closed: a client sends a prompt, gets its tokens, and sends the next one at once. Which step comes next
depends on counts alone, never on a clock or a token, so that all ranks take the same steps.
"""

import functools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.benchmark.protocol import Agree
from pipeline.engines.torch import TorchEngine
from pipeline.models.slots import SlotCache

WARMUP_STEPS = 2  # decode steps before any counts


@dataclass(frozen=True)
class Step:
    """One forward: the prompt of one request, or one more token for each of several."""

    is_prefill: bool
    requests: tuple[int, ...]


@dataclass(frozen=True)
class Waited:
    """One request's milliseconds: until its first token, and for each one behind it."""

    ttft_ms: float
    ms_per_token: float


def drawn_tokens(requests: int, mean: int, seed: int) -> list[int]:
    """Tokens behind the first that each request asks for: spread over 1 … 2·mean - 1, in an order that is drawn.

    Were they all alike, clients would march in step and nobody would meet a queue after the first prompts.
    """
    asked = [1 + round(2 * (mean - 1) * (place + 0.5) / requests) for place in range(requests)]
    random.Random(seed).shuffle(asked)
    return asked


def schedule(new_tokens: Sequence[int], concurrency: int) -> list[Step]:
    """All steps of a closed loop; request r is one of client r % concurrency, which sends its own in their order.

    An iteration reads the prompt that has waited longest, if any waits, then decodes once for all that have theirs
    read. All clients begin at the same time; of prompts sent at the same time the lower client's goes first.
    """
    waiting, left = deque(range(concurrency)), dict[int, int]()
    steps = []
    while waiting or left:
        if waiting:
            request = waiting.popleft()
            steps.append(Step(True, (request,)))
            left[request] = new_tokens[request]
        running = tuple(sorted(left, key=lambda request: request % concurrency))
        steps.append(Step(False, running))
        for request in running:
            left[request] -= 1
            if not left[request]:
                del left[request]
                if request + concurrency < len(new_tokens):
                    waiting.append(request + concurrency)
    return steps


def waited(steps: Sequence[Step], milliseconds: Sequence[float], concurrency: int) -> list[Waited]:
    """What each request waited where steps took so long; its TTFT counts from when it was sent, queueing included."""
    clock = 0.0
    first, last, count = dict[int, float](), dict[int, float](), dict[int, int]()
    for step, taken in zip(steps, milliseconds, strict=True):
        clock += taken
        for request in step.requests:
            (first if step.is_prefill else last)[request] = clock
            count[request] = count.get(request, -1) + 1
    return [
        Waited(
            first[request] - (last[request - concurrency] if request >= concurrency else 0.0),
            (last[request] - first[request]) / count[request],
        )
        for request in sorted(first)
    ]


def serve(
    engine: TorchEngine,
    prompts: Tensor,  # (requests, T)
    new_tokens: Sequence[int],
    concurrency: int,
    timed: Callable[[Callable[[], None]], float],
    slowest: Agree,
) -> dict[str, Any]:
    """One closed loop: what each request waited, its tokens, and the seconds of it all.

    `timed(work)` gives the milliseconds of a step on this rank, `slowest` the maximum over ranks of each.
    """
    server = Server(engine, prompts, concurrency, prompts.shape[1] + max(new_tokens) + 1)
    server.warm_up()
    steps = schedule(new_tokens, concurrency)
    milliseconds = slowest([timed(functools.partial(server.take, step)) for step in steps])
    engine.drop_cache()
    found = waited(steps, milliseconds, concurrency)
    return {
        "ttft_ms": [one.ttft_ms for one in found],
        "ms_per_token": [one.ms_per_token for one in found],
        "new_tokens": list(new_tokens),
        "seconds": sum(milliseconds) / 1e3,
        "tokens": server.tokens,
    }


class Server:
    """One engine with a slot for each client, and the tokens that each request has got."""

    def __init__(self, engine: TorchEngine, prompts: Tensor, concurrency: int, capacity: int) -> None:
        self.engine, self.prompts, self.concurrency = engine, prompts, concurrency  # prompts (requests, T)
        self.slots = SlotCache(engine.model, concurrency, capacity)
        self.tokens: list[list[int]] = [[] for _ in prompts]

    def warm_up(self) -> None:
        """A prompt and steps of all slots, whose tokens nobody gets."""
        self.engine.cache = self.slots.sequences[0]
        self.engine.prefill(self.prompts[:1])
        for _ in range(WARMUP_STEPS):
            self.engine.cache = self.slots.running(range(self.concurrency))
            self.engine.decode(self.prompts.new_zeros(self.concurrency)).tolist()

    def take(self, step: Step) -> None:
        """One forward; its tokens are on the host when it returns."""
        slots = [request % self.concurrency for request in step.requests]
        if step.is_prefill:
            self.engine.cache = self.slots.sequences[slots[0]]
            sampled = self.engine.prefill(self.prompts[step.requests[0]][None])
        else:
            self.engine.cache = self.slots.running(slots)
            newest = [self.tokens[request][-1] for request in step.requests]
            sampled = self.engine.decode(torch.tensor(newest, device=self.prompts.device))
        for request, token in zip(step.requests, sampled.tolist(), strict=True):
            self.tokens[request].append(token)
