"""Attention in blocks of products against a naive float64 one and torch's kernel."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import ModelConfig
from pipeline.models import attention, build_model
from pipeline.models.attention import BLOCK, LEAST_QUERIES, blocked_attention, causal_attention

SHAPES = [  # (B, h, T, S, hd)
    (1, 1, 1, 1, 4),
    (2, 3, 5, 5, 8),
    (1, 12, BLOCK, BLOCK, 64),
    (2, 6, BLOCK + 1, BLOCK + 1, 82),
    (4, 3, 2 * BLOCK + 17, 2 * BLOCK + 17, 58),
    (2, 5, 100, 3 * BLOCK, 24),
    (2, 2, 3, 200, 16),
    (1, 13, 8, 2048, 8),
]


def sample(shape: tuple[int, ...], scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v as the views of one fused product that the model hands over."""
    batch, heads, new, seen, head_dim = shape
    generator = torch.Generator().manual_seed(7)
    fused = scale * torch.randn(batch, seen, 3, heads, head_dim, generator=generator)
    q, k, v = (part.transpose(1, 2) for part in fused.unbind(2))
    return q[:, :, seen - new :], k, v


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One row at a time, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    before = k.shape[2] - q.shape[2]
    rows = []
    for row in range(q.shape[2]):
        end = before + row + 1
        scores = (q[:, :, row, None] * k[:, :, :end]).sum(-1) / math.sqrt(q.shape[-1])  # (B, h, end)
        weights = torch.exp(scores - scores.max(-1, keepdim=True).values)
        rows.append((weights[..., None] * v[:, :, :end]).sum(2) / weights.sum(-1, keepdim=True))
    return torch.stack(rows, dim=2)


@pytest.fixture
def small_memory(monkeypatch) -> None:
    """Room for the scores of few heads, so that they come in several turns."""
    monkeypatch.setattr(attention, "SCORES", 1 << 12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turns", ["one", "several"])
def test_blocks_are_attention(shape, turns, request):
    if turns == "several":
        request.getfixturevalue("small_memory")
    q, k, v = sample(shape)
    with torch.inference_mode():
        found = blocked_attention(q, k, v)
        if shape[2] == shape[3]:
            theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.testing.assert_close(found, theirs, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(found.double(), naive(q, k, v), rtol=1e-5, atol=2e-6)


def test_keys_may_be_a_caches_with_other_strides():
    q, k, v = sample((2, 3, 70, 150, 16))
    room = torch.full((2, 2, 3, 400, 16), math.nan)  # what lies behind is never read
    room[0, :, :, :150], room[1, :, :, :150] = k, v
    found = blocked_attention(q, room[0, :, :, :150], room[1, :, :, :150])
    torch.testing.assert_close(found.double(), naive(q, k, v), rtol=1e-5, atol=2e-6)


def test_large_scores_give_numbers():
    q, k, v = sample((1, 4, 150, 150, 32), scale=1e3)  # scores of some 1e7: each row takes one value
    found = blocked_attention(q, k, v)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.double(), naive(q, k, v), rtol=1e-4, atol=1e-2)
    q, k, v = sample((1, 4, 150, 150, 32), scale=1e15)
    assert torch.isfinite(blocked_attention(q, k, v)).all()


def test_no_position_sees_a_later_one():
    q, k, v = sample((1, 2, 130, 130, 8))
    before = blocked_attention(q, k, v)
    k[:, :, 77:], v[:, :, 77:] = 1e4, 1e6
    after = blocked_attention(q, k, v)
    assert torch.equal(after[:, :, :77], before[:, :, :77])


@pytest.mark.parametrize(
    ("shape", "learns", "dtype", "blocks"),
    [
        ((1, 12, 512, 512, 64), False, torch.float32, True),
        ((4, 3, 512, 512, 42), False, torch.float32, True),
        ((1, 12, 64, 512, 64), False, torch.float32, True),
        ((1, 12, 512, 512, 64), True, torch.float32, False),
        ((1, 12, 512, 512, 64), False, torch.float64, False),
        ((1, 12, 512, 512, 64), False, torch.bfloat16, False),
        ((1, 12, 32, 32, 64), False, torch.float32, False),
        ((1, 12, LEAST_QUERIES - 1, 2048, 64), False, torch.float32, False),
        ((1, 12, 1, 2048, 64), False, torch.float32, False),
        ((4, 3, 160, 160, 42), False, torch.float32, False),
        ((1, 12, 64, 1024, 64), False, torch.float32, False),
    ],
    ids=str,
)
def test_blocks_are_for_long_prompts_without_gradients(shape, learns, dtype, blocks, monkeypatch):
    calls = []
    monkeypatch.setattr(attention, "blocked_attention", lambda *tensors: calls.append(1) or blocked_attention(*tensors))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    q, k, v = (part.to(dtype).requires_grad_(learns) for part in sample(shape))
    with torch.set_grad_enabled(learns):
        found = causal_attention(q, k, v)
    assert bool(calls) == blocks
    if dtype == torch.float32 and shape[2] < 100:
        torch.testing.assert_close(found.double(), naive(q, k, v), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "architecture", [("standard", 1), ("standard_split", 1), ("kraken", 2), ("parallel", 1)], ids=str
)
def test_a_models_logits_are_those_with_gradients(architecture, monkeypatch):
    """Where gradients are kept torch's kernel runs; a cache filled in chunks must not change a thing either."""
    monkeypatch.setattr(attention, "LEAST_PRODUCTS", 1)
    name, n_ways = architecture
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 24, "block_size": 160, "vocab_size": 64}
    model = build_model(ModelConfig(name="test", architecture=name, n_ways=n_ways, **shape), seed=2)
    tokens = torch.randint(0, 64, (2, 150), generator=torch.Generator().manual_seed(1))
    expected = model(tokens).detach()
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), expected, atol=2e-5, rtol=1e-5)
        cache = model.new_cache(batch_size=2)
        parts = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 70), (70, 71), (71, 150))]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=2e-5, rtol=1e-5)
