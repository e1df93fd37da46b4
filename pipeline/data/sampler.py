"""Which tokens a training step sees: a pure function of seed and step, so resuming needs no state."""

import numpy as np

from pipeline.data.token_data import TokenSplit
from pipeline.errors import DataError


class TokenSampler:
    """Random windows of block_size + 1 tokens, as nanoGPT draws them.

    The global batch of a step is the same however workers and micro-batches divide it: each
    reads its own rows with `part`. Raises DataError where the split is shorter than one window.
    """

    def __init__(self, split: TokenSplit, block_size: int, global_batch_size: int, seed: int) -> None:
        if split.tokens <= block_size:
            raise DataError(
                f"the {split.name} split has {split.tokens} tokens: a window of block_size={block_size} needs "
                f"{block_size + 1}; add text, or set a smaller model.block_size"
            )
        self.split, self.block_size, self.global_batch_size, self.seed = split, block_size, global_batch_size, seed

    def starts(self, step: int) -> np.ndarray:
        """First token of each window of a step, (global_batch_size,) int64; every position is equally likely."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        return generator.integers(0, self.split.tokens - self.block_size, size=self.global_batch_size)

    def batch(self, step: int) -> np.ndarray:
        """The global batch, (global_batch_size, block_size + 1) int64: inputs [:, :-1], targets [:, 1:]."""
        return self.part(step, slice(None))

    def part(self, step: int, rows: slice) -> np.ndarray:
        """Rows `rows` of batch(step), (rows, block_size + 1) int64; reads those alone."""
        starts = self.starts(step)[rows]
        out = np.empty((len(starts), self.block_size + 1), dtype=np.int64)
        for row, start in enumerate(starts):
            out[row] = self.split.read(int(start), self.block_size + 1)
        return out
