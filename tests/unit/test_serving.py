"""Clients served at a time: the order of steps, what each request waits, and the rows made of it."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.benchmark.dry_run import dry_run
from pipeline.benchmark.grid import Cell, expand
from pipeline.benchmark.ranks.memory import rank_bytes
from pipeline.benchmark.ranks.serving import Step, drawn_tokens, schedule, waited
from pipeline.benchmark.serving import serving_rows
from pipeline.benchmark.text import serving_table
from pipeline.benchmark.ttft import Resources, Served
from pipeline.compose import model_config, shipped
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.errors import ConfigError
from tests.unit.test_benchmark_grid import grid

RESOURCES = Resources("cpu", 1, [], oversubscribed=False)
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


def engine_answer(milliseconds_of_a_prompt: float) -> dict[str, Any]:
    """A fake engine's loop: two clients, two requests each, of two tokens behind the first."""
    new_tokens = [2, 2, 2, 2]
    steps = schedule(new_tokens, concurrency=2)
    taken = [milliseconds_of_a_prompt if step.is_prefill else TOKEN_MS for step in steps]
    found = waited(steps, taken, 2)
    return {
        "ttft_ms": [one.ttft_ms for one in found],
        "ms_per_token": [one.ms_per_token for one in found],
        "new_tokens": new_tokens,
        "seconds": sum(taken) / 1e3,
    }


def served(concurrency: int, answers: list[dict[str, Any]]) -> Served:
    models = grid("ttft_serving")[2][0]
    by_label = dict.fromkeys(models.by_architecture, answers)
    return Served(models, Cell(128, 1, concurrency), "1gbit", RESOURCES, by_label)


def test_rates_and_goodput_by_hand():
    """Per launch: prompt 0, step; prompt 1, step (0 has ended, sends 2); prompt 2, step (1 has ended, sends 3); ..."""
    answers = [engine_answer(ms) for ms in (100, 90, 80)]
    assert answers[0]["ttft_ms"] == [100, 210, 100, 100]  # 1 waits for a prompt, a step and its own prompt
    assert answers[0]["ms_per_token"] == [60, 60, 60, 10]  # half of (10 + 100 + 10), the last one's 10 + 10
    assert [answer["seconds"] for answer in answers] == pytest.approx([0.45, 0.41, 0.37])  # 4 prompts, 5 steps

    (row, *_) = serving_rows([served(2, answers)], config(ttft_limit_ms=95.0, requests_per_client=2, decode_tokens=2))
    assert (row.architecture, row.concurrency, row.requests, row.ttft_limit_ms) == ("standard", 2, 12, 95.0)
    assert row.samples_ms == [answer["ttft_ms"] for answer in answers]
    assert row.ttft_ms_p50 == 95.0  # of 80 ×3, 90 ×3, 100 ×3, 170, 190, 210: between the sixth and the seventh
    goodputs = [0, 3 / 0.41, 3 / 0.37]  # of the requests of each launch, those whose TTFT was 95 or less
    mean = sum(goodputs) / 3
    assert row.goodput_per_s == pytest.approx(mean)
    assert row.share_within_limit == 6 / 12
    half = 4.302653 * (sum((one - mean) ** 2 for one in goodputs) / 2) ** 0.5 / 3**0.5  # Student's t, two degrees
    assert (row.goodput_low, row.goodput_high) == (max(0.0, mean - half), pytest.approx(mean + half))
    assert row.interval_over == "launches"
    seconds = (1 / 0.45 + 1 / 0.41 + 1 / 0.37) / 3
    assert row.requests_per_s == pytest.approx(4 * seconds)
    assert row.output_tokens_per_s == pytest.approx(12 * seconds)  # four first tokens, eight behind them
    assert row.prompt_tokens_per_s == pytest.approx(4 * 128 * seconds)


def test_the_limit_is_twice_the_baselines_time_with_one_client_unless_it_is_set():
    alone = engine_answer(100) | {"ttft_ms": [30, 40, 50, 41]}
    rows = serving_rows([served(1, [alone]), served(2, [engine_answer(70)])], config(requests_per_client=2))
    assert {row.ttft_limit_ms for row in rows} == {81.0}  # twice the median of 30, 40, 41, 50
    assert {row.ttft_limit_from for row in rows} == {"2 times standard's median with one client in the same cell"}
    assert [row.concurrency for row in rows] == [1] * 5 + [2] * 5
    assert rows[5].share_within_limit == 0.75  # 70, 150, 70, 70
    assert (rows[0].goodput_low, rows[0].goodput_high, rows[0].interval_over) == (None, None, None)  # one launch


def test_the_table_says_the_limit_and_marks_ranks_that_take_turns():
    crowded = replace(served(2, [engine_answer(70)]), resources=replace(RESOURCES, oversubscribed=True))
    rows = serving_rows([crowded], config(ttft_limit_ms=95.0))
    text = serving_table(rows)
    assert "ranks exceed cores" in text
    assert "TTFT limit 95 ms (set by benchmark.ttft_limit_ms)" in text
    assert all(row.oversubscribed for row in rows)


def test_memory_of_slots_is_counted():
    models = grid("ttft_serving")[2][0]
    few, many = (rank_bytes(config(concurrencies=[1, clients]), models, "cpu", True) for clients in (8, 16))
    longest = 128 + 31 + 1  # prompt, most tokens behind it, and one more
    heads = 8 * 82  # of Kraken's way a rank, the widest; the standard model's half has 6 of 64
    assert many - few == 8 * longest * 2 * 12 * heads * 4  # keys and values of 12 layers in float32


def test_a_dry_run_says_what_clients_ask_for():
    said = dry_run(config(), shipped("link", "rate"), "cpu", grid("ttft_serving"))
    assert "serves 4 at a time, T=128: 16 requests of 1 to 31 tokens behind the first, 16 prompts and" in said
