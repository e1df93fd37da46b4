"""The engine that runs everywhere: the model's own forward, eager on CPU, eager or one CUDA graph on a GPU."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.communication import LOCAL, Communicator
from pipeline.config.model import ModelConfig
from pipeline.models import KeyValueCache, Placement, Transformer, build_model
from pipeline.models.checkpoint import load_model


class TorchEngine:
    """One rank's part of a model and the communicator its forward is handed."""

    name = "torch"

    def __init__(self, model: Transformer, communicator: Communicator = LOCAL) -> None:
        self.model = model.eval().requires_grad_(False)
        self.communicator = communicator
        self.cache: KeyValueCache | None = None

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        placement: Placement,
        communicator: Communicator = LOCAL,
        seed: int = 1337,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "TorchEngine":
        """Random weights drawn straight on this rank's part: no process ever holds the whole model."""
        return cls(build_model(config, placement, seed, device, dtype), communicator)

    @classmethod
    def load(
        cls,
        folder: Path,
        config: ModelConfig,
        placement: Placement,
        communicator: Communicator = LOCAL,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "TorchEngine":
        """A trained model's part of this rank, read slice by slice; raises CheckpointError."""
        return cls(load_model(folder, config, placement, device, dtype), communicator)

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
        return self._sample(tokens)

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:  # (B,) -> (B,)
        """One more token a sequence. Raises ValueError before keep_cache and beyond block_size."""
        if self.cache is None:
            raise ValueError("decode needs a cache: call keep_cache before prefill")
        return self._sample(tokens[:, None])

    def _sample(self, tokens: Tensor) -> Tensor:  # (B, T) -> (B,)
        logits = self.model(tokens, self.communicator, self.cache, last_only=True)  # (B, 1, V)
        return torch.argmax(logits[:, -1], dim=-1)
