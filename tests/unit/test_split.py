"""The document split: deterministic, about the right share, never an empty side."""

import numpy as np
import pytest

from pipeline.data.split import in_val, uniform, val_mask
from pipeline.errors import DataError


def test_share_and_spread() -> None:
    mask = val_mask(100_000, 0.01, 2357)
    assert 850 < mask.sum() < 1150
    halves = mask[:50_000].sum(), mask[50_000:].sum()
    assert min(halves) > 400
    scores = uniform(np.arange(100_000), 1)
    assert abs(scores.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(scores[1:], scores[:-1])[0, 1]) < 0.02


def test_depends_on_seed_and_index_alone() -> None:
    mask = val_mask(5000, 0.05, 7)
    assert np.array_equal(mask[:1000], [in_val(index, 0.05, 7) for index in range(1000)])
    assert np.array_equal(val_mask(9000, 0.05, 7)[:5000], mask)
    assert not np.array_equal(val_mask(5000, 0.05, 8), mask)


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("documents", [2, 3, 10])
def test_both_sides_have_a_document(documents: int, fraction: float) -> None:
    assert 0 < val_mask(documents, fraction, 2357).sum() < documents


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2"):
        val_mask(1, 0.1, 0)
