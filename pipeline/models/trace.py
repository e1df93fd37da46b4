"""What one rank does from prompt to first token, kernel by kernel, derived by running the model's forward on costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import nn

from pipeline.config.model import ModelConfig
from pipeline.models import values
from pipeline.models.build import build_model
from pipeline.models.cache import PromptMemory
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm, WayLinear
from pipeline.models.placement import Placement, vocabulary_share
from pipeline.models.values import Stream

Category = Literal["norm", "gemm", "attention", "elementwise", "lm_head"]
MODULES: tuple[Category, ...] = ("norm", "gemm", "attention")  # what a sum can hide under


@dataclass
class Kernel:
    """One kernel on the compute stream: FLOPs, and elements read and written in device memory."""

    name: str
    category: Category
    flops: float
    elements: float
    layer: int | None
    serves: "Start | None" = None  # a copy into or out of this sum's buffer


@dataclass
class Start:
    """An all-reduce of `elements` begins, once the kernels before it have run."""

    elements: int
    width: int  # elements a token
    layer: int | None
    source: "Cost | None" = None  # the stream that was summed over ways, which others may still read


@dataclass
class Wait:
    """The next kernel needs this sum."""

    start: Start


Step = Kernel | Start | Wait


@dataclass(frozen=True)
class Trace:
    """The steps of one forward in the order of its text."""

    steps: tuple[Step, ...]

    @property
    def kernels(self) -> list[Kernel]:
        return [step for step in self.steps if isinstance(step, Kernel)]

    @property
    def starts(self) -> list[Start]:
        return [step for step in self.steps if isinstance(step, Start)]

    @property
    def flops(self) -> float:
        return sum(kernel.flops for kernel in self.kernels)

    @property
    def blocking(self) -> list[Start]:
        """All-reduces awaited before any norm, product or attention could hide them."""
        found, under_way = [], {}
        for step in self.steps:
            if isinstance(step, Start):
                under_way[id(step)] = False
            elif isinstance(step, Wait):
                if not under_way.pop(id(step.start), True):
                    found.append(step.start)
            elif step.category in MODULES:
                under_way = dict.fromkeys(under_way, True)
        return found


@dataclass
class Cost:
    """A tensor, (ways, rows, width), that some kernel has written."""

    ways: int
    rows: int  # batch × tokens
    tokens: int  # of each sequence
    width: int
    reads: int = 0
    one_way: "Cost | None" = None  # the same memory: what a sum over a single way is, until something overwrites it


@dataclass
class _Sum:
    start: Start
    result: Cost
    reads: int  # of the source, when the sum began


class _Recorder:
    """Writes down one rank's kernels and sums."""

    waits_late = False

    def __init__(self, config: ModelConfig, batch_size: int, context: int, logits: int) -> None:
        self.config, self.batch_size, self.tokens, self.logits = config, batch_size, context, logits
        self.steps: list[Step] = []
        self.layer: int | None = None
        self.seen: dict[int, tuple[PromptMemory, int]] = {}  # by memory: tokens of earlier chunks

    def run(self, name: str, category: Category, flops: float, elements: float, serves: Start | None = None) -> Kernel:
        kernel = Kernel(name, category, flops, elements, self.layer, serves)
        self.steps.append(kernel)
        return kernel

    def embed(self) -> Cost:
        rows = self.batch_size * self.tokens
        tables = 2 if self.config.position == "learned" else 1  # a row of each is read, one written
        self.run("embedding", "elementwise", 0.0, (tables + 1) * rows * self.config.n_embd)
        return Cost(1, rows, self.tokens, self.config.n_embd)

    def enter(self, layer: int) -> None:
        self.layer = layer

    def part(self, name: str, module: nn.Module, x: "Stream[Cost, _Sum]", memory: PromptMemory | None) -> Cost:
        value = x.made()
        value.reads += 1
        if name == "ln_f":
            self.layer = None
        rows = value.rows
        short = name.rsplit(".", 1)[-1]
        if isinstance(module, WayLayerNorm):
            ways, width = module.weight.shape
            self.run(short, "norm", 0.0, 2 * ways * rows * width)
            return Cost(ways, rows, value.tokens, width)
        if isinstance(module, WayLinear):
            return self._product(name.rsplit(".", 2)[-2], module, value)
        if isinstance(module, FeedForward):
            up = self._product("up", module.up, value)
            self.run("gelu", "elementwise", 0.0, 2 * up.ways * rows * module.up.weight.shape[2])
            return self._product("down", module.down, up)
        assert isinstance(module, Attention)
        inner = self._product("qkv", module.qkv, value)
        width = module.n_head * module.head_dim
        before = self.seen.get(id(memory), (memory, 0))[1] if memory is not None else 0
        if memory is not None:
            self.seen[id(memory)] = (memory, before + value.tokens)
        pairs = self.batch_size * value.tokens * (before + value.tokens / 2)  # causal: half of the chunk's own scores
        moved = (2 * rows + 2 * self.batch_size * (before + value.tokens)) * inner.ways * width  # q, k, v in, one out
        self.run("attention", "attention", 4.0 * inner.ways * pairs * width, moved)
        return self._product("out", module.out, inner)

    def _product(self, name: str, linear: WayLinear, x: Cost) -> Cost:
        ways, n_in, n_out = linear.weight.shape
        moved = ways * (x.rows * n_in + n_in * n_out + x.rows * n_out)
        self.run(name, "gemm", 2.0 * ways * x.rows * n_in * n_out, moved)
        return Cost(ways, x.rows, x.tokens, n_out)

    def add(self, terms: Sequence[tuple[Cost, float]]) -> Cost:
        for value, _ in terms:
            value.reads += 1
        first, ways = terms[0][0], max(value.ways for value, _ in terms)
        if {(value.rows, value.width) for value, _ in terms} != {(first.rows, first.width)}:
            raise TypeError("a sum of streams of different shapes")
        name = "add" if len(terms) > 1 else "scale"
        self.run(name, "elementwise", 0.0, (len(terms) + 1) * ways * first.rows * first.width)
        return Cost(ways, first.rows, first.tokens, first.width)

    def sum_of_ways(self, x: Cost) -> Cost:
        if x.ways > 1:
            self.run("sum_of_ways", "elementwise", 0.0, (x.ways + 1) * x.rows * x.width)
        return Cost(1, x.rows, x.tokens, x.width, one_way=x)

    def start(self, x: Cost) -> _Sum:
        if x.ways != 1:
            raise TypeError("an all-reduce of several ways, which are to be summed here first")
        elements = x.rows * x.width
        start = Start(elements, x.width, self.layer, x.one_way)
        if x.one_way is not None and x.one_way.ways == 1:  # in place would spoil what others read: see trace()
            self.run("copy_in", "elementwise", 0.0, 2 * elements, serves=start)
        self.steps.append(start)
        return _Sum(start, Cost(1, x.rows, x.tokens, x.width), 0 if x.one_way is None else x.one_way.reads)

    def wait(self, handle: _Sum) -> Cost:
        start = handle.start
        self.steps.append(Wait(start))
        if start.source is not None and start.source.reads > handle.reads:  # read on while its sum was on the way
            self.run("copy_out", "elementwise", 0.0, 2 * start.elements, serves=start)
        return handle.result

    def last(self, x: "Stream[Cost, _Sum]") -> Cost:
        value = x.made()
        return value if value.tokens == 1 else Cost(value.ways, self.batch_size, 1, value.width)

    def leave(self, x: "Stream[Cost, _Sum]") -> None:
        x.made()  # the last layer's work, not the head's
        self.layer = None

    def split(self, x: Cost) -> list[Cost]:
        first = -(-x.tokens // 2)
        return [Cost(x.ways, self.batch_size * tokens, tokens, x.width) for tokens in (first, x.tokens - first)]

    def join(self, chunks: Sequence[Cost]) -> Cost:
        tokens = sum(chunk.tokens for chunk in chunks)
        return Cost(chunks[0].ways, self.batch_size * tokens, tokens, chunks[0].width)

    def head(self, x: "Stream[Cost, _Sum]") -> None:
        d, rows, columns = self.config.n_embd, x.made().rows, self.logits
        self.run("lm_head", "lm_head", 2.0 * rows * d * columns, rows * d + d * columns + rows * columns)


@lru_cache(maxsize=512)
def trace(config: ModelConfig, tp_size: int, batch_size: int, context: int, last_only: bool = True) -> Trace:
    """One rank's forward of `batch_size` prompts of `context` tokens, to the first token or to all logits.

    To the first token a rank computes its share of the vocabulary (the largest, where they differ); finding the
    likeliest token over the ranks is not in the steps. All logits are computed whole on every rank.
    W ways that share a rank run as one batched kernel. A sum of a stream that is read on while it travels goes
    through a buffer of its own: a copy in (the sum over ways, where there are several) and a copy out, the price of
    overlapping (paper section 4). Raises ConfigError where tp_size does not divide the model.
    """
    model = build_model(config, Placement(0, tp_size), seed=None, device="meta")
    logits = len(vocabulary_share(config, model.placement)) if last_only else config.vocab_size
    recorder = _Recorder(config, batch_size, context, logits)
    values.run(model, recorder, torch.empty(batch_size, context, dtype=torch.long, device="meta"), last_only)
    copied = {id(step.serves) for step in recorder.steps if isinstance(step, Kernel) and step.name == "copy_out"}
    return Trace(
        tuple(
            step
            for step in recorder.steps
            if not (isinstance(step, Kernel) and step.name == "copy_in" and id(step.serves) not in copied)
        )
    )
