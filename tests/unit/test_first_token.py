"""On the way to a first token: nothing is computed that it does not need, and what is left is the same model."""

import pytest
import torch
from torch import Tensor

from pipeline.models import Placement, architectures, build_model
from pipeline.models.shard import shard_state
from tests.unit.test_model_parts import over_ranks
from tests.unit.test_models import TOKENS, config, perturbed

NAMES = architectures.names()
MIXED = [config("kraken", 4, mixing=mixing) for mixing in ("mean", "none", "residual")]


def case_of(architecture: str, **changes):
    return config(architecture, 1 if architectures.block_of(architecture).ways == "none" else 4, **changes)


CASES = [*(case_of(name) for name in NAMES), *MIXED]


def short(case) -> str:
    return f"{case.architecture}-{case.mixing}-{case.n_layer}"


def prompts(length: int) -> Tensor:  # (2, T)
    return torch.tensor([TOKENS[:length], TOKENS[::-1][:length]])


@pytest.mark.parametrize("case", [*CASES, *(case_of(name, n_layer=1) for name in NAMES)], ids=short)
def test_the_first_token_is_read_off_the_whole_forwards_logits(case):
    model = perturbed(case)
    for length in (1, 2, 9):
        tokens = prompts(length)
        with torch.inference_mode():
            expected = model(tokens)[:, -1:]  # (B, 1, V)
            torch.testing.assert_close(model(tokens, last_only=True), expected, atol=1e-5, rtol=0)
            assert model(tokens).shape == (2, length, 64)  # nothing of it stays on the model


@pytest.mark.parametrize("tp_size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=short)
def test_and_so_it_is_over_ranks_with_and_without_a_cache(case, tp_size):
    whole = perturbed(case)
    tokens = prompts(9)
    with torch.inference_mode():
        expected = whole(tokens)[:, -1:]

    def work(rank: int, communicator) -> None:
        part = build_model(case, Placement(rank, tp_size), seed=None)
        part.load_state_dict(shard_state(whole.state_dict(), case, part.placement))
        cache, other = part.new_cache(2), part.new_cache(2)
        with torch.inference_mode():
            torch.testing.assert_close(part(tokens, communicator, last_only=True), expected, atol=1e-5, rtol=0)
            part(tokens[:, :8], communicator, cache, last_only=True)
            part(tokens[:, :8], communicator, other)
            for ours, theirs in zip(cache.layers, other.layers, strict=True):  # of every position, in every layer
                torch.testing.assert_close(ours.keys[:, :, :8], theirs.keys[:, :, :8], atol=1e-5, rtol=0)
                torch.testing.assert_close(ours.values[:, :, :8], theirs.values[:, :, :8], atol=1e-5, rtol=0)
            decoded = part(tokens[:, 8:], communicator, cache, last_only=True)
            torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=0)

    over_ranks(tp_size, work)


@pytest.mark.parametrize("architecture", NAMES)
def test_what_is_behind_the_last_attention_sees_one_position(architecture):
    model = perturbed(case_of(architecture))
    seen: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        if name.endswith((".mlp", ".attn", ".ln_2")):
            module.register_forward_hook(
                lambda _, given, out, name=name: seen.setdefault(name, []).append(given[0].shape[2])
            )
    with torch.inference_mode():
        model(prompts(9), last_only=True)
    chunks = [5, 4] if architecture == "standard_split" else [9]
    assert seen["blocks.2.attn"] == seen["blocks.1.attn"] == chunks
    assert seen["blocks.2.mlp"] == [1]
    assert seen["blocks.1.mlp"] == ([1] if architecture == "ladder" else chunks)  # no attention reads Ladder's
    assert seen["blocks.0.mlp"] == chunks


def test_training_sees_every_position():
    model = perturbed(case_of("standard"))
    with torch.inference_mode():
        model(prompts(9), last_only=True)
    model(prompts(9)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert torch.count_nonzero(model.wpe.weight.grad[:9]) > 0 and not any(block.last_only for block in model.blocks)
