"""Which documents are held out: a hash of seed and index, so that it depends on nothing else."""

import numpy as np

from pipeline.errors import DataError

GOLDEN = 0x9E3779B97F4A7C15


def uniform(indices: np.ndarray, seed: int) -> np.ndarray:
    """SplitMix64 of seed and index as float64 in [0, 1); indices (n,) integer → (n,)."""
    with np.errstate(over="ignore"):
        z = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)
        z += np.uint64((seed * 0xD1342543DE82EF95) % 2**64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


def in_val(index: int, fraction: float, seed: int) -> bool:
    return bool(uniform(np.array([index]), seed)[0] < fraction)


def val_mask(documents: int, fraction: float, seed: int) -> np.ndarray:
    """(documents,) bool, about `fraction` of them true, at least one on each side.

    Raises DataError for fewer than two documents: none could be held out.
    """
    if documents < 2:
        raise DataError(
            f"the corpus has {documents} document: at least 2 are needed to hold one out for validation. "
            "Name more files in data.source (a long .txt file counts as several documents)"
        )
    score = uniform(np.arange(documents), seed)
    held_out = score < fraction
    held_out[score.argmin()] = True
    held_out[score.argmax()] = False
    return held_out
