"""What finished launches answered outlives the process, for this work on this machine alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark import kept, launches, ttft
from pipeline.benchmark.grid import expand
from pipeline.benchmark.kept import CellAnswer, Kept
from pipeline.compose import compose, model_config
from pipeline.errors import RunError

ROUNDS = {
    "samples_ms": {"standard/overlapped": [1.1, 1.2], "standard/skipped": [0.1 + 0.2]},
    "device_ms": {"standard/overlapped": [0.0, 0.0], "standard/skipped": [0.0]},
    "warmup_rounds": 2,
    "stopped_by": "interval",
    "details": {"standard": {"collectives": 8}},
}


def answer(link: str = "loopback", context: int = 64, **changes: object) -> CellAnswer:
    return CellAnswer("demo", context, 1, link, 1e9, False, 5e10, 0.25, 0.0, rounds={**ROUNDS, **changes})


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    one = Kept(tmp_path / "ttft-x.json", "abc")
    assert one.read("launch0") is None
    one.write("launch0", [answer(), answer("1gbit")])
    assert Kept(tmp_path / "ttft-x.json", "abc").read("launch0") == [answer(), answer("1gbit")]
    assert Kept(tmp_path / "ttft-x.json", "other settings").read("launch0") is None
    assert Kept(tmp_path / "ttft-y.json", "abc").read("launch0") is None


def test_another_machine_and_a_damaged_file_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Kept(tmp_path / "ttft-x.json", "abc")
    one.write("launch0", [answer()])
    (one.folder / "launch1.json").write_text('{"machine": ')
    (one.folder / "launch2.json").write_text(json.dumps({"machine": kept.machine(), "answers": [{"size": "demo"}]}))
    assert one.read("launch1") is None and one.read("launch2") is None
    monkeypatch.setattr(kept.platform, "node", lambda: "elsewhere")
    assert one.read("launch0") is None


@pytest.mark.parametrize("what", ["boot", "torch"])
def test_another_boot_or_torch_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    one = Kept(tmp_path / "ttft-x.json", "abc")
    one.write("launch0", [answer()])
    assert one.read("launch0")
    if what == "boot":
        (tmp_path / "boot_id").write_text("another\n")
        monkeypatch.setattr(kept, "BOOT", tmp_path / "boot_id")
    else:
        monkeypatch.setattr(kept.metadata, "version", lambda name: "0.1")
    assert one.read("launch0") is None


def test_what_may_not_be_kept_is_not(tmp_path: Path) -> None:
    def refuse() -> None:
        raise RunError("the code changed")

    one = Kept(tmp_path / "ttft-x.json", "abc", refuse)
    with pytest.raises(RunError):
        one.write("launch0", [answer()])
    assert one.read("launch0") is None


def test_one_rank_has_no_link_to_measure() -> None:
    config = compose(["benchmark=ttft_demo"])
    progress = launches.Progress(lambda line: None, 1)
    alone = launches.Launch(config.benchmark, config.cluster, launches.Unit(1, [], ["loopback"]), {}, progress, 0)
    ranks: Any = None  # nobody is asked
    assert alone._probe(ranks, "loopback") is None


def test_nothing_is_left_once_the_result_is_written(tmp_path: Path) -> None:
    for result, identity in (("ttft-x", "abc"), ("ttft-x", "def"), ("ttft-x-rate", "abc")):
        Kept(tmp_path / f"{result}.json", identity).write("launch0", [answer()])
    Kept(tmp_path / "ttft-x.json", "abc").remove()
    assert [path.name for path in tmp_path.iterdir()] == [".ttft-x-rate.abc.launches"]


def test_launches_take_turns_and_a_finished_one_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["benchmark=ttft_demo", "link=rate", "link.links=[1gbit,loopback]"])
    benchmark = config.benchmark.model_copy(
        update={"contexts": [64, 128], "tp_sizes": [2], "architectures": ["standard"]}
    )
    grid = expand(benchmark, model_config)
    asked: list[tuple[int, str]] = []
    die_in = {"launch": 2}

    def answers(self: launches.Launch, store: Path) -> list[CellAnswer]:
        if self.launch == die_in["launch"]:
            raise KeyboardInterrupt
        asked.append((self.launch, "".join(self.unit.links)))
        found = [answer(link, context) for link in self.unit.links for context in (128, 64)]
        for one in found:
            assert one.rounds
            one.rounds["samples_ms"] = {key: [self.launch + 1.0] for key in ROUNDS["samples_ms"]}
        return found

    monkeypatch.setattr(launches.Launch, "answers", answers)
    keep = Kept(tmp_path / "ttft.json", "abc")
    said: list[str] = []
    run = (benchmark, config.link, config.cluster, grid, {}, said.append)
    with pytest.raises(KeyboardInterrupt):
        launches.measure_grid(*run, keep)
    assert [launch for launch, _ in asked] == [0, 0, 1, 1]
    assert asked[0][1] != asked[2][1]  # another order
    die_in["launch"] = -1
    asked.clear()
    measured = launches.measure_grid(*run, keep)[0]
    assert [launch for launch, _ in asked] == [2, 2]
    assert " 4/12  launch 1 of 3: kept from before" in said
    assert [(one.link, one.cell.context) for one in measured] == [
        ("1gbit", 64),
        ("1gbit", 128),
        ("loopback", 64),
        ("loopback", 128),
    ]  # in the order of the grid
    assert measured[0].samples_ms("standard/overlapped") == [[1.0], [2.0], [3.0]]
    assert measured[0].usage.others == 0.25 and measured[0].matrix_flops_per_s == 5e10


def test_every_part_of_a_launch_comes_first_in_turn_and_every_second_goes_backwards() -> None:
    orders = [launches.ordered("abcd", launch) for launch in range(4)]
    assert len({order[0] for order in orders}) > 1 and all(sorted(order) == list("abcd") for order in orders)
    assert (orders[0].index("b") - orders[0].index("a")) != (orders[1].index("b") - orders[1].index("a"))


def test_what_ended_most_launches_ended_the_row() -> None:
    def ended(*by: str) -> str:
        return str(ttft.joined([{**ROUNDS, "stopped_by": one} for one in by])["stopped_by"])

    assert ended("time_limit", "interval", "time_limit") == "time_limit"
    assert ended("time_limit", "interval") == "interval"  # equals: the last
    joined = ttft.joined([ROUNDS, {key: value for key, value in ROUNDS.items() if key != "details"}])
    assert joined["samples_ms"]["standard/overlapped"] == [[1.1, 1.2], [1.1, 1.2]]
    assert joined["warmup_rounds"] == 4 and joined["details"] == ROUNDS["details"]
