"""Clients served at a time: the order of steps, what each request waits, and the rows made of it."""

import pytest

from pipeline.benchmark.grid import expand
from pipeline.benchmark.ranks.serving import Step, drawn_tokens, schedule, waited
from pipeline.compose import model_config, shipped
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.errors import ConfigError

PROMPT_MS, TOKEN_MS = 100.0, 10.0  # of a fake engine: any prompt, any decode step


def durations(steps: list[Step]) -> list[float]:
    return [PROMPT_MS if step.is_prefill else TOKEN_MS for step in steps]


def prompt(request: int) -> Step:
    return Step(True, (request,))


def tokens(*requests: int) -> Step:
    return Step(False, requests)


def test_one_client_waits_for_nobody():
    steps = schedule([2, 1], concurrency=1)
    assert steps == [prompt(0), tokens(0), tokens(0), prompt(1), tokens(1)]
    assert [(one.ttft_ms, one.ms_per_token) for one in waited(steps, durations(steps), 1)] == [(100, 10), (100, 10)]


def test_prompts_go_first_one_at_a_time_and_all_running_sequences_decode_between_them():
    """Three clients, two requests each, worked out by hand: requests 0 to 2 are sent at 0, r + 3 when r has ended."""
    steps = schedule([1, 4, 2, 2, 1, 1], concurrency=3)
    assert steps == [
        *(prompt(0), tokens(0)),  # 110: 0 has ended, its client sends 3, behind 1 and 2
        *(prompt(1), tokens(1)),  # 220
        *(prompt(2), tokens(1, 2)),  # 330
        *(prompt(3), tokens(3, 1, 2)),  # 440, in the order of slots; 2 has ended, 5 is sent
        *(prompt(5), tokens(3, 1, 5)),  # 550; 3 and 1 and 5 have ended, 4 is sent
        *(prompt(4), tokens(4)),  # 660
    ]
    found = waited(steps, durations(steps), 3)
    assert [one.ttft_ms for one in found] == [100, 210, 320, 430 - 110, 650 - 550, 540 - 440]
    # 1: first token at 210, last at 550, four tokens; 2: 320 and 440; 3: 430 and 550
    assert [one.ms_per_token for one in found] == [10, 85, 60, 60, 10, 10]


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_every_request_gets_all_its_tokens_and_no_slot_holds_two(concurrency):
    asked = drawn_tokens(4 * concurrency, mean=5, seed=7)
    left: dict[int, int] = {}
    read: list[int] = []
    for step in schedule(asked, concurrency):
        if step.is_prefill:
            (request,) = step.requests
            assert request % concurrency not in {other % concurrency for other in left}
            left[request] = asked[request]
            read.append(request)
            continue
        assert set(step.requests) == set(left)  # nobody who has tokens to come is left out
        left = {request: count - 1 for request, count in left.items() if count > 1}
    assert sorted(read) == list(range(4 * concurrency))
    assert not left


def test_requests_ask_for_different_numbers_of_tokens_that_average_what_is_set():
    asked = drawn_tokens(64, mean=16, seed=1)
    assert (min(asked), max(asked), len(set(asked))) == (1, 31, 31)
    assert asked == drawn_tokens(64, mean=16, seed=1)  # every rank draws the same
    assert asked != sorted(asked)
    for requests in (1, 4, 8, 32):  # as many tokens a request whatever the number of clients
        assert sum(drawn_tokens(requests, mean=16, seed=1)) == pytest.approx(16 * requests, abs=1)


def config(**changes) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(shipped("benchmark", "ttft_serving").model_dump() | changes)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"concurrencies": [2, 4]}, r"concurrencies=\[2, 4\]: must have 1, from which ttft_limit_ms=null follows"),
        ({"decode_tokens": 0}, "decode_tokens=0: requests ask for tokens behind the first; set 1 or more"),
        ({"protocol": "one_rank"}, "clients are served by engine=torch and protocol=ranks alone"),
        ({"concurrencies": [1, 1]}, "concurrencies"),
    ],
)
def test_what_cannot_be_served_is_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        config(**changes)


def test_more_tokens_than_the_model_reads_are_refused():
    expand(config(contexts=[1024 - 31]), model_config)
    with pytest.raises(ConfigError, match=r"decode_tokens=16: 994 \+ at most 31 tokens of a request are more than the"):
        expand(config(contexts=[1024 - 30]), model_config)
