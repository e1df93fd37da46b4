"""On the way to a first token: nothing is computed that it does not need, and what is left is the same model."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from pipeline.communication import (
    LOCAL,
    BlockingCommunicator,
    CountingCommunicator,
    SkippedCommunicator,
    TimedCommunicator,
)
from pipeline.communication.distributed import DistributedCommunicator
from pipeline.communication.modelled import ModelledCommunicator
from pipeline.engines.torch import TorchEngine
from pipeline.models import Placement, architectures, build_model, count
from pipeline.models.generate import generate
from pipeline.models.greedy import likeliest
from pipeline.models.placement import vocabulary_share
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
    assert torch.count_nonzero(model.wpe.weight.grad[:9]) > 0


def test_blocks_are_afterwards_as_before():
    model = perturbed(case_of("kraken"))
    before = [set(vars(block)) for block in model.blocks]
    with torch.inference_mode():
        model(prompts(9), last_only=True)
        assert not any(block.last_only for block in model.blocks)
        with pytest.raises(AttributeError):
            model(prompts(9), communicator=None, last_only=True)
    assert not any(block.last_only for block in model.blocks)
    assert [set(vars(block)) for block in model.blocks] == before  # a compiled block watches them


def test_what_is_compiled_is_not_compiled_again_after_a_sample():
    model = perturbed(case_of("standard"))
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        compiled(prompts(9))
        assert counters["stats"]["unique_graphs"] == 1
        generate(model, prompts(4), 2)


def parts_of(whole, tp_size: int):
    """One rank's part of a model after the other."""
    for rank in range(tp_size):
        part = build_model(whole.config, Placement(rank, tp_size), seed=None, dtype=whole.wte.weight.dtype)
        part.load_state_dict(shard_state(whole.state_dict(), whole.config, part.placement))
        yield part


@pytest.mark.parametrize(("vocab_size", "tp_size"), [(67, 2), (67, 4), (66, 4), (64, 4), (5, 3)])
def test_shares_of_the_vocabulary_are_all_of_it_in_order(vocab_size, tp_size):
    case = config("standard", vocab_size=vocab_size)
    shares = [vocabulary_share(case, Placement(rank, tp_size)) for rank in range(tp_size)]
    assert [token for share in shares for token in share] == list(range(vocab_size))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)  # the first rank's is what costs are counted for


@pytest.mark.parametrize("tp_size", [2, 4])
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}], ids=str)
@pytest.mark.parametrize("architecture", NAMES)
def test_every_rank_samples_the_token_of_one_process(architecture, changes, tp_size):
    """Greedily, a prompt and what follows it, with a vocabulary that the ranks do not divide."""
    case = case_of(architecture, vocab_size=67, **changes)
    whole = perturbed(case)
    expected = prompts(9)
    with torch.inference_mode():
        for _ in range(4):
            expected = torch.cat([expected, whole(expected)[:, -1].argmax(-1, keepdim=True)], dim=1)
    parts = list(parts_of(whole, tp_size))

    def work(rank: int, communicator) -> None:
        counting = CountingCommunicator(DistributedCommunicator(communicator.group))
        engine = TorchEngine(parts[rank], counting)
        token = engine.prefill(prompts(9))
        assert counting.collectives == count.collectives(case).total  # the exchange of candidates is no all-reduce
        assert counting.bytes == count.prefill_collective_bytes(case, 2, 9, "float32")
        engine.keep_cache(2, 13)
        found = [engine.prefill(prompts(9))]
        assert torch.equal(found[0], token)
        for _ in range(3):
            found.append(engine.decode(found[-1]))
        assert torch.equal(torch.stack(found, dim=1), expected[:, 9:])

    over_ranks(tp_size, work)


class Apart:
    """Candidates of ranks that are asked one after the other: `gather` gives all that were kept."""

    def __init__(self, tp_size: int) -> None:
        self.world_size = tp_size
        self.kept: list[Tensor] = []

    def gather(self, x: Tensor) -> Tensor:
        self.kept = [*self.kept, x][-self.world_size :]
        return torch.stack([x] * (self.world_size - len(self.kept)) + self.kept)


def sampled(whole, hidden: Tensor, tp_size: int) -> Tensor:  # (B, T, d) -> (B,)
    """What the last of the ranks samples, once it has every rank's candidate."""
    ranks = Apart(tp_size)
    for part in parts_of(whole, tp_size):
        token = likeliest(part, hidden, ranks)
    return token


@pytest.mark.parametrize("tp_size", [2, 3, 4])
@pytest.mark.parametrize(
    "best", [[10, 50], [40, 50], [0, 66], [33, 34], [66], list(range(67))], ids=lambda tokens: str(tokens[:2])
)
def test_of_equal_logits_the_lowest_token_wins(best, tp_size):
    whole = perturbed(config("standard", vocab_size=67, n_head=12))
    hidden = torch.randn(3, 1, 24, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole.wte.weight[best] = 100 * hidden[0, 0]  # the first sequence's likeliest, all of them alike
        expected = whole.logits(hidden)[:, -1].argmax(-1)
        assert expected[0] == min(best)
        assert torch.equal(sampled(whole, hidden, tp_size), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("tp_size", [2, 4])
def test_rounded_logits_tie_often_and_are_told_apart_as_argmax_does(tp_size, dtype):
    whole = perturbed(config("standard", vocab_size=4099)).to(dtype)
    hidden = torch.randn(300, 1, 24, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.inference_mode():
        logits = torch.cat(
            [one.logits(hidden, vocabulary_share(one.config, one.placement)) for one in parts_of(whole, tp_size)], -1
        )[:, -1]  # (B, V)
        tied = (logits == logits.max(-1, keepdim=True).values).sum(-1) > 1
        assert dtype != torch.bfloat16 or tied.any()
        assert torch.equal(sampled(whole, hidden, tp_size), logits.argmax(-1))
        torch.testing.assert_close(logits, whole.logits(hidden)[:, -1])


def test_a_logit_that_is_no_number_is_found_as_argmax_finds_it():
    whole = perturbed(config("standard", vocab_size=67))
    hidden = torch.randn(2, 1, 24)
    with torch.inference_mode():
        whole.wte.weight[[20, 50]] = torch.nan
        assert sampled(whole, hidden, 2).tolist() == whole.logits(hidden)[:, -1].argmax(-1).tolist() == [20, 20]


def test_a_rank_reads_its_rows_of_the_table_that_is_there():
    part = build_model(config("standard", vocab_size=67), Placement(1, 2))
    share = vocabulary_share(part.config, part.placement)
    rows = part.wte.weight[share.start : share.stop]
    assert rows.untyped_storage().data_ptr() == part.wte.weight.untyped_storage().data_ptr()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        likeliest(part, torch.zeros(2, 1, 24), SkippedCommunicator(2))
    assert counter.get_total_flops() == 2 * 2 * 24 * 33
    assert (
        count.prefill_flops(part.config, 1, 8, Placement(0, 2))
        - count.prefill_flops(part.config.model_copy(update={"vocab_size": 65}), 1, 8, Placement(0, 2))
        == 2 * 24
    )  # 34 rows against 33, on the rank that has most


@pytest.mark.parametrize(
    "communicator",
    [SkippedCommunicator(3), ModelledCommunicator(3, lambda size: 1e-3), BlockingCommunicator(SkippedCommunicator(3))],
    ids=lambda one: type(one).__name__,
)
def test_who_talks_to_nobody_gathers_itself(communicator):
    x = torch.tensor([[1.0, 2.0]])
    assert torch.equal(communicator.gather(x), x.expand(3, 1, 2))
    assert torch.equal(TimedCommunicator(communicator).gather(x), x.expand(3, 1, 2))
    assert torch.equal(LOCAL.gather(x), x[None])
