"""Decoding sequences of several lengths in one step: the tokens that each would get alone."""

import pytest
import torch

from pipeline.engines.torch import TorchEngine
from pipeline.models import architectures
from pipeline.models.slots import SlotCache
from tests.unit.test_models import config, perturbed

PROMPTS = [[5, 3, 60, 0, 17], [9, 8, 7], [1, 2, 3, 4, 5, 6, 7, 8]]
NEW = 5  # tokens after the first


def alone(engine: TorchEngine, prompt: list[int], new_tokens: int = NEW) -> list[int]:
    """Greedy tokens without any cache: the whole text is read again for every token."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(new_tokens + 1):
            tokens.append(int(engine.model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def engine_of(name: str, **changes) -> TorchEngine:
    return TorchEngine(perturbed(config(name, 1 if architectures.block_of(name).ways == "none" else 4, **changes)))


def prefill(engine: TorchEngine, slots: SlotCache, slot: int, prompt: list[int]) -> list[int]:
    engine.cache = slots.sequences[slot]
    return engine.prefill(torch.tensor([prompt])).tolist()


def decode(engine: TorchEngine, slots: SlotCache, found: dict[int, list[int]], running: list[int]) -> None:
    engine.cache = slots.running(running)
    sampled = engine.decode(torch.tensor([found[slot][-1] for slot in running])).tolist()
    for slot, token in zip(running, sampled, strict=True):
        found[slot].append(token)


@pytest.mark.parametrize("name", architectures.names())
@pytest.mark.parametrize("position", ["learned", "none"])
def test_sequences_of_several_lengths_get_the_tokens_that_each_gets_alone(name, position):
    engine = engine_of(name, position=position)
    slots = SlotCache(engine.model, n_slots=3, capacity=16)
    for layer in slots.whole.layers:  # a slot that an earlier sequence left
        layer.keys.fill_(30.0)
        layer.values.fill_(-30.0)
    found = {2: prefill(engine, slots, 2, PROMPTS[0])}
    decode(engine, slots, found, [2])
    found[0] = prefill(engine, slots, 0, PROMPTS[1])
    decode(engine, slots, found, [2, 0])  # some slots, not in their order
    found[1] = prefill(engine, slots, 1, PROMPTS[2])
    for _ in range(3):
        decode(engine, slots, found, [0, 1, 2])  # all: 7, 8 and 4 tokens long at first
    decode(engine, slots, found, [0, 1])
    decode(engine, slots, found, [1])
    for slot, prompt in ((2, PROMPTS[0]), (0, PROMPTS[1]), (1, PROMPTS[2])):
        assert found[slot] == alone(engine, prompt), slot
    found[2] = prefill(engine, slots, 2, PROMPTS[1])  # a slot used again, with a shorter prompt
    for _ in range(2):
        decode(engine, slots, found, [2])
    assert found[2] == alone(engine, PROMPTS[1], 2)


def test_untouched_memory_reaches_no_token(monkeypatch):
    """Memory comes as it is: NaN behind a short sequence must not spread through a masked product."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    engine = engine_of("standard")
    slots = SlotCache(engine.model, n_slots=2, capacity=16)
    found = {slot: prefill(engine, slots, slot, PROMPTS[slot + 1]) for slot in (0, 1)}
    decode(engine, slots, found, [0, 1])
    for slot in (0, 1):
        assert found[slot] == alone(engine, PROMPTS[slot + 1], 1)


def test_a_step_beyond_block_size_is_refused():
    engine = engine_of("standard", block_size=8)
    slots = SlotCache(engine.model, n_slots=2, capacity=8)
    found = {slot: prefill(engine, slots, slot, PROMPTS[slot + 1]) for slot in (0, 1)}
    with pytest.raises(ValueError, match="context of 9 tokens: block_size is 8"):
        decode(engine, slots, found, [0, 1])
