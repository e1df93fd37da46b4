"""Scores with shared prefixes and batches equal those of one plain forward per request."""

import random

import pytest
import torch
import torch.nn.functional as F

from pipeline.compose import model_config
from pipeline.config import ModelConfig
from pipeline.evaluation.scoring.requests import Request, Score, plan, truncate
from pipeline.evaluation.scoring.scorer import Scorer
from pipeline.models import Transformer, build_model

ARCHITECTURES = ("demo_standard", "demo_parallel", "demo_kraken_4way", "demo_ladder", "demo_desync_4way")


def small(name: str, block_size: int = 64) -> Transformer:
    config = model_config(name).model_copy(update={"vocab_size": 97, "block_size": block_size, "init_std": 0.3})
    return build_model(ModelConfig.model_validate(config.model_dump()), seed=5).eval()


def naive(model: Transformer, request: Request) -> Score:
    """One forward over everything, one softmax over every position."""
    whole = torch.tensor((request.context + request.continuation)[-(model.config.block_size + 1) :])
    with torch.no_grad():
        log_probabilities = F.log_softmax(model(whole[None, :-1])[0], dim=-1)  # (T, V)
    count = min(len(request.continuation), len(whole) - 1)
    rows, targets = log_probabilities[-count:], whole[-count:]
    value = rows.gather(1, targets[:, None]).sum().item()
    return Score(value, bool((rows.argmax(-1) == targets).all()))


def questions(seed: int) -> list[Request]:
    """Groups of choices behind a context, of every length: none shared, all shared, one token, too long."""
    draw = random.Random(seed)
    tokens = lambda count: tuple(draw.randrange(97) for _ in range(count))  # noqa: E731
    asked = []
    for length in (1, 2, 7, 20, 21, 40, 63, 64, 90):
        context = tokens(length)
        head = tokens(4)
        asked += [Request(context, tokens(1)) for _ in range(3)]
        asked += [Request(context, head + tokens(draw.randrange(1, 9))) for _ in range(5)]
        asked += [Request(context, head), Request(context, head[:2])]  # one choice begins another
    asked += [Request(tokens(12), tokens(draw.randrange(1, 30))) for _ in range(9)]
    asked += [asked[0], asked[13], Request(tokens(3), tokens(70))]  # twice the same, and a choice beyond block_size
    return asked


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_one_forward_per_request(name: str) -> None:
    model = small(name)
    asked = questions(1)
    found = Scorer(model, batch_size=4).loglikelihood(asked)
    expected = [naive(model, request) for request in asked]
    assert [score.loglikelihood for score in found] == pytest.approx(
        [score.loglikelihood for score in expected], abs=2e-4
    )
    assert [score.is_greedy for score in found] == [score.is_greedy for score in expected]


def test_greedy_is_true_for_what_greedy_decoding_gives() -> None:
    scorer = Scorer(small("demo_kraken_4way"))
    prompt = (5, 17, 3, 60)
    (answer,) = scorer.generate([prompt], 6)
    right, wrong = scorer.loglikelihood(
        [Request(prompt, answer), Request(prompt, (*answer[:-1], (answer[-1] + 1) % 97))]
    )
    assert right.is_greedy and not wrong.is_greedy


def test_order_of_requests_changes_nothing() -> None:
    scorer = Scorer(small("demo_kraken_4way"), batch_size=4)
    asked = questions(2)
    order = list(range(len(asked)))
    random.Random(3).shuffle(order)
    straight = scorer.loglikelihood(asked)
    shuffled = scorer.loglikelihood([asked[index] for index in order])
    assert shuffled == [straight[index] for index in order]  # bit for bit


def test_shared_prefixes_are_computed_once() -> None:
    scorer = Scorer(small("demo_standard"))
    context = tuple(range(40))
    scorer.loglikelihood([Request(context, (50 + choice, 3, 4, 5)) for choice in range(8)])
    assert scorer.counts.computed_tokens == 40 + 8 * 3


def test_one_token_choices_take_one_forward() -> None:
    scorer = Scorer(small("demo_standard"))
    scorer.loglikelihood([Request(tuple(range(40)), (50 + choice,)) for choice in range(3)])
    assert scorer.counts.computed_tokens == 40


def test_truncation_is_from_the_left_and_counted() -> None:
    request = Request(tuple(range(10)), (90, 91))
    assert truncate(request, 11) == ((*tuple(range(10)), 90), (90, 91), False)
    assert truncate(request, 10) == ((*tuple(range(1, 10)), 90), (90, 91), True)
    assert truncate(Request((1,), tuple(range(20))), 8) == (tuple(range(11, 19)), tuple(range(12, 20)), True)
    work = plan([request, Request((1, 2), (3,))], block_size=10, batch_size=4, batch_tokens=100)
    assert work.truncated == 1


def test_batches_hold_what_was_asked_once() -> None:
    asked = questions(4)
    work = plan(asked, block_size=64, batch_size=4, batch_tokens=100)
    rows = [row for batch in work.plain for row in batch]
    rows += [row for batch in work.grouped for group in batch for row in group.rows]
    assert sorted(index for row in rows for index, _ in row.asked) == list(range(len(asked)))
    assert len({row.inputs for row in rows}) == len(rows)
    assert all(len(batch) <= 4 for batch in work.plain)
    assert all(len(batch) == 1 or len(batch) * len(batch[0].inputs) <= 100 for batch in work.plain)


def test_generation_equals_a_loop_without_cache() -> None:
    model = small("demo_kraken_4way")
    prompts = [(1, 2, 3), (4, 5, 6), (7,), tuple(range(80))]
    found = Scorer(model, batch_size=2).generate(prompts, 5, lambda new: new[-1] == 11)
    for prompt, answer in zip(prompts, found, strict=True):
        tokens, expected = list(prompt[-(64 - 5) :]), []
        with torch.no_grad():
            while len(expected) < 5 and 11 not in expected:
                expected.append(int(model(torch.tensor([tokens + expected]))[0, -1].argmax()))
        assert answer == tuple(expected)


def test_generation_needs_room_for_a_prompt() -> None:
    with pytest.raises(ValueError, match="no room"):
        Scorer(small("demo_standard")).generate([(1, 2)], 64)
