"""A model's own forward run on values that are not tensors: what it computes, without computing it.

A forward may use the parts of pipeline/models/layers.py, `+` between streams, `*` and `/` by a number,
`.sum(0, keepdim=True)` over ways, its block's `needed`, `split_tokens` and `join_tokens`, and the communicator. What
one of these means on its values is the interpreter's affair: a cost (pipeline/models/trace.py), a layer of a network
(pipeline/export/tensorrt).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.models.block import Block
from pipeline.models.cache import PromptMemory
from pipeline.models.layers import Attention, FeedForward, WayLayerNorm, WayLinear
from pipeline.models.transformer import Transformer

V = TypeVar("V")
H = TypeVar("H")
PARTS = (WayLayerNorm, Attention, FeedForward, WayLinear)


class Interpreter(Protocol[V, H]):
    """What the steps of a forward are on values V, with H for a sum on its way."""

    tokens: int  # of a prompt; -1: any number
    waits_late: bool

    def embed(self) -> V: ...

    def enter(self, layer: int) -> None:
        """A block begins."""
        ...

    def part(self, name: str, module: nn.Module, x: "Stream[V, H]", memory: PromptMemory | None) -> V:
        """One of PARTS reads `x`; an attention with a `memory` continues the chunks that it holds."""
        ...

    def add(self, terms: Sequence[tuple[V, float]]) -> V:
        """The sum of values, each times its factor."""
        ...

    def sum_of_ways(self, x: V) -> V: ...

    def start(self, x: V) -> H: ...

    def wait(self, handle: H) -> V: ...

    def last(self, x: "Stream[V, H]") -> V:
        """The positions whose logits are wanted; of these alone, themselves."""
        ...

    def leave(self, x: "Stream[V, H]") -> None:
        """The blocks are behind."""
        ...

    def split(self, x: V) -> Sequence[V]: ...

    def join(self, chunks: Sequence[V]) -> V: ...

    def head(self, x: "Stream[V, H]") -> None: ...


@dataclass(frozen=True)
class Pending(Generic[V, H]):
    """A sum that nobody has read yet."""

    handle: H


class Stream(Generic[V, H]):
    """What stands for a tensor, (1 or W, B, T, d): a sum of terms, computed once, where something first reads it.

    Computing late is what lets kernels fuse additions.
    """

    def __init__(self, interpreter: Interpreter[V, H], terms: Sequence[tuple[V | Pending[V, H], float]]) -> None:
        self.interpreter = interpreter
        self.terms = tuple(terms)

    @property
    def is_pending(self) -> bool:
        """Whether computing it waits for a sum."""
        return any(isinstance(term, Pending) for term, _ in self.terms)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (-1, -1, self.interpreter.tokens, -1)  # a forward may ask whether there is one token only

    def made(self) -> V:
        """The value, computed now if it was not before."""
        if len(self.terms) > 1 or self.is_pending or self.terms[0][1] != 1:
            values = [
                (self.interpreter.wait(term.handle) if isinstance(term, Pending) else term, factor)
                for term, factor in self.terms
            ]
            self.terms = (
                (values[0][0] if values[0][1] == 1 and len(values) == 1 else self.interpreter.add(values), 1),
            )
        value = self.terms[0][0]
        assert not isinstance(value, Pending)
        return value

    def _of(self, value: V) -> "Stream[V, H]":
        return Stream(self.interpreter, [(value, 1)])

    def __add__(self, other: "Stream[V, H]") -> "Stream[V, H]":
        return Stream(self.interpreter, self.terms + other.terms)

    def __mul__(self, number: float) -> "Stream[V, H]":
        return Stream(self.interpreter, [(term, factor * number) for term, factor in self.terms])

    def __truediv__(self, number: float) -> "Stream[V, H]":
        return Stream(self.interpreter, [(term, factor / number) for term, factor in self.terms])

    def sum(self, axis: int, keepdim: bool) -> "Stream[V, H]":
        """Over the ways."""
        if axis != 0 or not keepdim:
            raise TypeError("a sum over another axis than the ways")
        return self._of(self.interpreter.sum_of_ways(self.made()))

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.split:
            stream = args[0]
            return tuple(stream._of(half) for half in stream.interpreter.split(stream.made()))
        if function is torch.cat:
            chunks = args[0]
            return chunks[0]._of(chunks[0].interpreter.join([chunk.made() for chunk in chunks]))
        if function is torch.narrow and args[1:] == (2, -1, 1):
            return args[0]._of(args[0].interpreter.last(args[0]))
        raise TypeError(f"torch's {getattr(function, '__name__', function)}")


@dataclass(frozen=True)
class _Handle(Generic[V, H]):
    interpreter: Interpreter[V, H]
    handle: H

    def wait(self) -> Stream[V, H]:
        """Here, as torch does, or where its value is first read, if the interpreter orders work by what it needs."""
        if self.interpreter.waits_late:
            return Stream(self.interpreter, [(Pending(self.handle), 1)])
        return Stream(self.interpreter, [(self.interpreter.wait(self.handle), 1)])


@dataclass(frozen=True)
class _Communicator(Generic[V, H]):
    interpreter: Interpreter[V, H]
    world_size: int

    def start(self, x: Stream[V, H]) -> _Handle[V, H]:
        return _Handle(self.interpreter, self.interpreter.start(x.made()))


def run(  # tokens (B, T), on meta
    model: Transformer, interpreter: Interpreter[V, H], tokens: Tensor, last_only: bool = True
) -> None:
    """Run the forward of a prompt to its first token, or to all logits, on `interpreter`'s values.

    `model` is on the meta device and serves for this alone. Raises ConfigError where its architecture's forward does
    what no interpreter knows.
    """
    for name, module in model.named_modules():
        if isinstance(module, PARTS):
            setattr(module, "forward", _part(interpreter, name, module))  # noqa: B010  # what nn.Module calls
        elif isinstance(module, Block):
            module.register_forward_pre_hook(lambda block, _: interpreter.enter(block.layer))

    def last(x: Stream[V, H]) -> Stream[V, H]:
        interpreter.leave(x)
        return x._of(interpreter.last(x))

    replaced: dict[str, Callable[..., Any]] = {
        "embed": lambda tokens, start: Stream(interpreter, [(interpreter.embed(), 1)]),
        "last": last,
        "single": lambda x: x,
        "logits": interpreter.head,
    }
    for name, method in replaced.items():
        setattr(model, name, method)
    communicator: Any = _Communicator(interpreter, model.placement.tp_size)
    try:
        model(tokens, communicator, last_only=last_only)
    except (TypeError, AttributeError, ValueError, IndexError, RuntimeError) as error:
        raise ConfigError(
            f"model.architecture={model.config.architecture}: its forward uses what cannot be counted, projected or "
            f"exported ({error}); pipeline/models/values.py says what can"
        ) from error


def _part(interpreter: Interpreter[V, H], name: str, module: nn.Module) -> Callable[..., Stream[V, H]]:
    def forward(x: Stream[V, H], memory: PromptMemory | None = None) -> Stream[V, H]:
        return x._of(interpreter.part(name, module, x, memory))

    return forward
