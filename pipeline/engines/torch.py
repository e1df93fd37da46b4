"""The engine that runs everywhere: the model's own forward, eager on CPU, eager or one CUDA graph on a GPU."""

import torch
from torch import Tensor

from pipeline.communication import LOCAL, Communicator
from pipeline.models import KeyValueCache, Transformer
from pipeline.models.greedy import likeliest

CAPTURE_WARMUP = 3


class TorchEngine:
    """One rank's part of a model and the communicator its forward is handed."""

    name = "torch"

    def __init__(self, model: Transformer, communicator: Communicator = LOCAL) -> None:
        self.model = model.eval().requires_grad_(False)
        self.communicator = communicator
        self.cache: KeyValueCache | None = None
        self._graphs: dict[tuple[object, ...], _Captured] = {}
        self._graph: _Captured | None = None

    def keep_cache(self, batch_size: int, capacity: int) -> None:
        """Allocate the keys and values that `decode` continues from; `prefill` fills them from now on."""
        self.cache = self.model.new_cache(batch_size, capacity)

    def drop_cache(self) -> None:
        self.cache = None

    @torch.inference_mode()
    def prefill(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        """Prompt to first token. Raises ValueError beyond block_size."""
        if self.cache is not None:
            self.cache.truncate(0)
        if self._graph is not None and self.cache is None and self._graph.tokens.shape == tokens.shape:
            return self._graph.replay(tokens)
        return self._sample(tokens)

    @torch.inference_mode()
    def capture(self, tokens: Tensor, key: str) -> None:  # (B, T)
        """From now on `prefill` of prompts of this shape replays one CUDA graph of the forward, made once per key.

        The key names the communicator, whose work is part of the graph. GPU only.
        """
        named = (key, tuple(tokens.shape))
        if named not in self._graphs:
            self._graphs[named] = _Captured(self, tokens)
        self._graph = self._graphs[named]

    def release_graphs(self) -> None:
        """Back to launching kernel by kernel: forget all graphs and their memory."""
        self._graphs.clear()
        self._graph = None

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:  # (B,) -> (B,)
        """One more token a sequence. Raises ValueError before keep_cache and beyond block_size."""
        if self.cache is None:
            raise ValueError("decode needs a cache: call keep_cache before prefill")
        return self._sample(tokens[:, None])

    def _sample(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        hidden = self.model.hidden(tokens, self.communicator, self.cache, last_only=True)  # (B, 1, d)
        return likeliest(self.model, hidden, self.communicator)


class _Captured:
    """The whole prefill, collectives on their stream included, as one CUDA graph with tensors of its own."""

    def __init__(self, engine: TorchEngine, tokens: Tensor) -> None:  # (B, T)
        self.tokens = tokens.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy initialisation of libraries may not be captured
            for _ in range(CAPTURE_WARMUP):
                engine._sample(self.tokens)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.sampled = engine._sample(self.tokens)  # (B,)

    def replay(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        self.tokens.copy_(tokens)
        self.graph.replay()
        return self.sampled
