"""The sampler: a pure function of seed and step, reaching every token, the same however it is divided."""

import numpy as np
import pytest

from pipeline.data import TokenSampler, TokenSplit
from pipeline.errors import DataError


def split_of(*lengths: int) -> TokenSplit:
    """Shards of these lengths holding 0, 1, 2, … on end."""
    ends = np.cumsum(lengths)
    return TokenSplit(
        [np.arange(end - length, end, dtype=np.uint16) for length, end in zip(lengths, ends, strict=True)]
    )


def test_reading_across_shards() -> None:
    split = split_of(5, 1, 7, 20)
    for start in range(33):
        for length in range(33 - start):
            got = split.read(start, length)
            assert got.dtype == np.int64
            assert got.tolist() == list(range(start, start + length))
    with pytest.raises(IndexError):
        split.read(30, 4)
    with pytest.raises(IndexError):
        split.read(-1, 2)


def test_same_batch_in_any_order() -> None:
    one, other = (TokenSampler(split_of(400, 600), 16, 8, seed=3) for _ in range(2))
    forward = [one.batch(step) for step in range(6)]
    for step in (5, 0, 3, 3, 1):
        assert np.array_equal(other.batch(step), forward[step])
    assert not np.array_equal(forward[0], forward[1])
    assert not np.array_equal(forward[0], TokenSampler(split_of(400, 600), 16, 8, seed=4).batch(0))


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(1, 2), (2, 4), (4, 1), (2, 2)])
def test_division_between_workers_changes_nothing(world_size: int, micro_batch_size: int) -> None:
    whole = TokenSampler(split_of(1000), 16, 8, seed=3).batch(7)
    rows: list[np.ndarray] = []
    per_rank = 8 // world_size
    for rank in range(world_size):
        sampler = TokenSampler(split_of(1000), 16, 8, seed=3)
        firsts = range(rank * per_rank, (rank + 1) * per_rank, micro_batch_size)
        rows += [sampler.part(7, slice(first, first + micro_batch_size)) for first in firsts]
    assert np.array_equal(np.concatenate(rows), whole)


def test_windows_are_consecutive_and_reach_every_token() -> None:
    sampler = TokenSampler(split_of(17, 23), 8, 64, seed=0)
    seen: set[int] = set()
    for step in range(20):
        batch = sampler.batch(step)
        assert batch.shape == (64, 9)
        assert (np.diff(batch, axis=1) == 1).all()
        seen.update(batch.ravel().tolist())
    assert seen == set(range(40))


def test_a_split_of_exactly_one_window() -> None:
    assert TokenSampler(split_of(9), 8, 2, seed=0).batch(0).tolist() == [list(range(9))] * 2
    with pytest.raises(DataError, match=r"8 tokens.*block_size=8 needs 9"):
        TokenSampler(split_of(8), 8, 2, seed=0)


@pytest.mark.parametrize("tokens", [2, 9, 16, 17, 18, 100])
def test_validation_windows_make_every_token_a_target_once(tokens: int) -> None:
    windows = list(split_of(tokens).windows(8))
    targets = [int(token) for window in windows for token in window[1:]]
    assert targets == list(range(1, tokens))
    assert all(2 <= len(window) <= 9 for window in windows)
    assert all(len(window) == 9 for window in windows[:-1])
