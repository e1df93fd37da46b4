"""The interface that every engine which can run a model offers: one rank's part, from prompt to tokens."""

from typing import Protocol

from torch import Tensor


class Engine(Protocol):
    """One rank of a model, ready to run. All ranks call the same methods in the same order."""

    @property
    def name(self) -> str:
        """The engine's name in result rows, as torch."""
        ...

    def prefill(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        """Read a prompt and sample its first output token, greedily; every rank returns the same tokens."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:  # (B,) -> (B,)
        """The token after `tokens`, which continue what the cache holds. Raises ValueError without a cache."""
        ...
