"""Rows and headlines from the real writers: what is averaged with what, and against independent arithmetic."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.benchmark.text import headline_text, ttft_table, verdicts_text
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.results import BASELINE, BOUND, TtftResult
from pipeline.results.cell import NO_LINK
from pipeline.results.headline import Headline, HeadlineEntry, Named, headline
from pipeline.results.ttft import TtftRow
from pipeline.results.verdicts import said, verdicts
from tests.unit import result_files as real

MODELLED = "measured compute, modelled communication"


def entry(found: Headline, architecture: str, band: str = "all", against: str = BASELINE) -> HeadlineEntry:
    (one,) = (one for one in getattr(found, band) if (one.architecture, one.against) == (architecture, against))
    assert isinstance(one, HeadlineEntry)
    return one


def rows_of(result: TtftResult, architecture: str) -> list[TtftRow]:
    return [row for row in result.rows if row.architecture == architecture]


def test_every_column_follows_from_the_samples_in_the_row(tmp_path: Path) -> None:
    result = real.ttft(tmp_path, links=("loopback",), crowded=())
    baselines = {row.cell: np.median(row.samples_ms) for row in rows_of(result, BASELINE)}
    bounds = {row.cell: np.median(row.samples_ms) for row in rows_of(result, BOUND)}
    assert len(result.rows) == 4 * (len(baselines) and len({row.architecture for row in result.rows}))
    for row in result.rows:
        own, standard, bound = np.median(row.samples_ms), baselines[row.cell], bounds[row.cell]
        compute = np.median(row.compute_samples_ms or [])
        assert (row.ttft_ms_median, row.compute_ms) == (own, compute)
        assert row.speedup == pytest.approx(standard / own - 1)
        assert row.exposed_communication_ms == pytest.approx(own - compute)
        assert row.hideable_ms == pytest.approx(standard - bound)
        assert row.share_hidden == pytest.approx((standard - own) / (standard - bound))
        assert (row.kind, row.ranks_measured, row.repeats) == ("measured", row.tp_size, 20)
        if row.blocking_samples_ms:
            waited = np.median(row.blocking_samples_ms)
            assert row.own_share_hidden == pytest.approx((waited - own) / (waited - compute))
    assert {row.architecture for row in result.rows if row.blocking_ms} >= {"kraken", "ladder"}
    assert all(row.collectives == 0 for row in rows_of(result, BOUND))


@pytest.mark.parametrize(("launches", "over"), [(1, "rounds"), (3, "launches")])
def test_the_headline_is_the_geometric_mean_of_the_rows_it_names(tmp_path: Path, launches: int, over: str) -> None:
    result = real.ttft(tmp_path, crowded=(4,), launches=launches)
    rivals = {row.cell: row for row in rows_of(result, "standard_split")}
    assert {found.against for found in result.headline.all} == {BASELINE, "standard_split"}
    for found in result.headline.all:
        own = [row for row in rows_of(result, found.architecture) if not row.oversubscribed]
        ratios = [1 + row.speedup for row in own]
        if found.against == "standard_split":
            ratios = [rivals[row.cell].ttft_ms_median / row.ttft_ms_median for row in own]
        expected = math.prod(ratios) ** (1 / len(own)) - 1
        assert found.geomean_speedup == pytest.approx(expected)
        assert found.geomean_speedup_low < found.geomean_speedup < found.geomean_speedup_high
        assert (found.least_speedup, found.most_speedup) == pytest.approx((min(ratios) - 1, max(ratios) - 1))
        assert found.cells == [row.cell for row in own] and found.rows == len(own) == 6
        if found.against == BASELINE:
            assert found.median_share_hidden == pytest.approx(np.median([row.share_hidden for row in own]))
        assert not found.oversubscribed and (found.kind, found.interval_over) == ("measured", over)
    assert BASELINE not in {found.architecture for found in result.headline.all}


def test_the_mean_over_launches_is_paired_by_launch_over_all_cells(tmp_path: Path) -> None:
    """Against scipy: each launch's mean log ratio over the cells is one of three numbers."""
    result = real.ttft(tmp_path, crowded=(), launches=3)
    for against in (BASELINE, "standard_split"):
        rivals = {row.cell: np.log(np.median(row.samples_ms, axis=1)) for row in rows_of(result, against)}
        own = {row.cell: np.log(np.median(row.samples_ms, axis=1)) for row in rows_of(result, "kraken")}
        per_launch = np.mean([rivals[cell] - own[cell] for cell in own], axis=0)
        ends = np.expm1(stats.ttest_1samp(per_launch, 0).confidence_interval(0.95))
        found = entry(result.headline, "kraken", against=against)
        assert (found.geomean_speedup_low, found.geomean_speedup_high) == pytest.approx(tuple(ends))


def test_two_launches_have_no_interval_anywhere(tmp_path: Path) -> None:
    result = real.ttft(tmp_path, links=("loopback",), crowded=(), launches=2)
    ends = [(row.ttft_ms_low, row.speedup_high, row.interval_over) for row in result.rows]
    ends += [(one.geomean_speedup_low, one.geomean_speedup_high, one.interval_over) for one in result.headline.all]
    ends += [(one.lead_low, one.told_apart, one.interval_over) for one in result.verdicts]
    assert set(ends) == {(None, None, None)}


def test_crowded_cells_stand_alone_only_where_there_are_no_others(tmp_path: Path) -> None:
    mixed = real.ttft(tmp_path, crowded=(4,))
    assert {cell.tp_size for found in mixed.headline.all for cell in found.cells} == {2}
    crowded = real.ttft(tmp_path, crowded=(2, 4))
    assert crowded.headline.all and all(found.oversubscribed for found in crowded.headline.all)
    assert "ranks exceed cores" in headline_text(crowded.headline)


def test_named_cells_are_those_that_the_benchmark_names_whatever_was_measured(tmp_path: Path) -> None:
    links, contexts = ["300mbit", "1gbit"], [128]
    result = real.ttft(tmp_path, crowded=(), headline_links=links, headline_contexts=contexts)
    assert (
        {(cell.link, cell.context) for one in result.headline.all for cell in one.cells}
        > {(cell.link, cell.context) for one in result.headline.named for cell in one.cells}
        == {("300mbit", 128), ("1gbit", 128)}
    )
    named = [row for row in result.rows if row.link in links and row.context in contexts]
    assert result.headline.named == headline(named).all
    assert "over 4 rows named beforehand (standard exposes" in headline_text(result.headline)
    by_link = headline(result.rows, Named(links=["300mbit"])).named
    assert {(cell.link, cell.context) for cell in by_link[0].cells} == {("300mbit", 128), ("300mbit", 256)}
    assert headline(result.rows).named == headline(result.rows, Named()).named == []  # nothing was named
    assert headline(result.rows, Named(links=["2gbit"])).named == []  # nothing of it was measured
    assert result.headline.missing == [] and "not timed" not in headline_text(result.headline)
    part = headline(result.rows, Named(links=["300mbit", "2gbit", "3gbit"]))
    assert part.missing == ["2gbit", "3gbit"] and part.named
    assert headline_text(part).endswith("links named beforehand that were not timed: 2gbit, 3gbit")


def test_cells_of_a_busy_machine_are_counted_and_said(tmp_path: Path) -> None:
    result = real.ttft(tmp_path, crowded=(), launches=3, contexts=[128], tp_sizes=[2])
    assert "busy" not in headline_text(result.headline) + verdicts_text(result.verdicts)
    rows = [row.model_copy(update={"busy": row.link == "300mbit"}) for row in result.rows]
    found = headline(rows)
    assert {(one.busy, one.rows) for one in found.all} == {(1, 3)}
    assert headline_text(found).count("machine busy in 1 of 3 cells)") == len(found.all)
    told = verdicts(rows)
    assert [(one.scope, one.busy) for one in told] == [("all", 1), ("cell", 0), ("cell", 1), ("cell", 0)]
    lines = verdicts_text(told).splitlines()
    assert "(measured, machine busy in 1 of 3 cells)" in lines[0] and "300mbit (measured, machine busy)" in lines[2]


def test_a_tracker_tells_kinds_apart(tmp_path: Path) -> None:
    ranks, alone = real.ttft(tmp_path, crowded=()), real.one_rank(tmp_path)
    both = headline([*ranks.rows, *alone.rows]).all
    assert len({one.metric for one in both}) == len(both)
    assert entry(ranks.headline, "kraken").metric == "kraken_geomean_speedup"
    modelled = "kraken_geomean_speedup_measured_compute_modelled_communication"
    assert entry(alone.headline, "kraken").metric == modelled


def test_an_entry_says_how_much_of_the_baselines_time_is_exposed(tmp_path: Path) -> None:
    def on_some_links(link: str) -> real.Milliseconds:
        slow = link == "300mbit"
        return lambda name, mode: real.milliseconds(name, mode) + (100.0 if slow and mode == "overlapped" else 0.0)

    rows = [
        row
        for link in ("loopback", "300mbit")
        for row in real.ttft(tmp_path, links=(link,), crowded=(), of=on_some_links(link)).rows
    ]
    found = entry(headline(rows, Named(links=["loopback"])), "kraken")
    assert (found.exposed_low, found.exposed_high) == pytest.approx((8 / 20, 108 / 120), rel=0.05)
    one_link = entry(headline(rows, Named(links=["loopback"])), "kraken", "named")
    assert (one_link.exposed_low, one_link.exposed_high) == pytest.approx((8 / 20, 8 / 20), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline_contexts": [128, 999]}, r"headline_contexts=\[999\]: must be among contexts=\[128, 256\]"),
        ({"headline_links": ["fast"]}, r"headline_links=\['fast'\]: must be loopback or a rate such as"),
        ({"headline_links": ["1gbit", "1gbit"]}, "headline_links"),
    ],
)
def test_named_cells_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    benchmark = real.settings(Path("unused"), "benchmark=ttft_demo").benchmark
    with pytest.raises(ValueError, match=message):
        BenchmarkConfig.model_validate({**benchmark.model_dump(), **changes})


def in_all_modes(**milliseconds: float) -> real.Milliseconds:
    return lambda name, mode: milliseconds.get(name, 30.0)


def test_a_verdict_names_the_fastest_and_says_whether_it_can_be_told_from_the_next(tmp_path: Path) -> None:
    of = in_all_modes(standard=20.0, kraken=14.0, ladder=16.0)
    clear = real.ttft(tmp_path, links=("loopback", "1gbit"), crowded=(), launches=3, of=of, headline_links=["1gbit"])
    scopes = [(one.scope, len(one.cells)) for one in clear.verdicts]
    assert scopes == [("all", 8), ("named", 4), *[("cell", 1)] * 8]
    for one in clear.verdicts:
        assert (one.fastest, one.next, one.told_apart, one.interval_over) == ("kraken", "ladder", True, "launches")
        assert one.speedup == pytest.approx(20 / 14 - 1, rel=0.1)
        assert 0 < one.lead_low < one.lead < one.lead_high
        assert one.beats_standard == ["kraken", "ladder"]
        assert BOUND not in (one.fastest, one.next)
    assert clear.verdicts[0].speedup == pytest.approx(entry(clear.headline, "kraken").geomean_speedup)
    first = verdicts_text(clear.verdicts).splitlines()[0]
    assert first.startswith("over all 8 cells (measured): kraken is fastest, +4") and "cannot" not in first
    assert first.endswith("over ladder, the next. Faster than standard: kraken, ladder.")


def test_a_verdict_says_where_no_difference_can_be_told_and_where_none_beats_standard(tmp_path: Path) -> None:
    level = real.ttft(
        tmp_path, links=("1gbit",), crowded=(), launches=3, of=in_all_modes(standard=20.0, kraken=14.0, ladder=14.0)
    )
    cells = [one for one in level.verdicts if one.scope == "cell"]
    assert all({one.fastest, one.next} == {"kraken", "ladder"} for one in cells)
    assert not all(one.told_apart for one in cells)
    lost = real.ttft(tmp_path, links=("1gbit",), crowded=(), launches=3, of=in_all_modes(standard=20.0))
    for one in lost.verdicts:
        assert (one.fastest, one.speedup, one.beats_standard, one.told_apart) == (BASELINE, 0.0, [], True)
    assert "standard is fastest; +" in verdicts_text(lost.verdicts)
    assert verdicts_text(lost.verdicts).count("None surely beats standard.") == len(lost.verdicts)


def test_a_verdict_without_samples_has_no_interval(tmp_path: Path) -> None:
    projected = verdicts(real.projection(tmp_path).rows)
    assert projected and {one.kind for one in projected} == {"projected"}
    assert {(one.told_apart, one.lead_low, one.interval_over) for one in projected} == {(None, None, None)}
    assert all("no interval" in said(one) for one in projected)


def test_rows_without_communication_have_no_part_in_a_headline(tmp_path: Path) -> None:
    """Compute alone says an architecture is slow, communication that it is fast: never one number of both."""
    result = real.one_rank(tmp_path, of=lambda name, mode: {"skipped": 10.0, "overlapped": 12.0}[mode] * FACTORS[name])
    alone = [row for row in result.rows if row.link == NO_LINK]
    modelled = [row for row in result.rows if row.link != NO_LINK]
    assert {row.kind for row in alone} == {"measured"} and {row.kind for row in modelled} == {MODELLED}
    assert {row.architecture for row in alone} == set(FACTORS) and all(row.collectives == 0 for row in alone)
    assert {row.ranks_measured for row in result.rows} == {1}
    assert {found.kind for found in result.headline.all} == {MODELLED}
    kraken = entry(result.headline, "kraken")
    (row,) = (row for row in modelled if row.architecture == "kraken")
    assert kraken.geomean_speedup == row.speedup and kraken.rows == 1
    assert [cell.link for cell in kraken.cells] == [row.link]
    assert MODELLED in headline_text(result.headline) and "(measured)" not in headline_text(result.headline)
    assert ttft_table(result.rows).count("rounds, measured\n") == 1


FACTORS = dict.fromkeys(real.settings(Path("unused"), "benchmark=ttft_demo").benchmark.architectures, 1.0) | {
    "kraken": 1.2
}


def test_kinds_are_never_averaged_together(tmp_path: Path) -> None:
    ranks, alone = real.ttft(tmp_path, crowded=()), real.one_rank(tmp_path)
    both = headline([*ranks.rows, *alone.rows])
    assert both.all == [*ranks.headline.all, *alone.headline.all]


def test_the_same_samples_have_the_same_interval(tmp_path: Path) -> None:
    """An architecture that takes the bound's very rounds has the bound's very interval."""
    result = real.ttft(tmp_path, links=("loopback",), crowded=())
    bounds = {row.cell: row for row in rows_of(result, BOUND)}
    twins = [
        row.model_copy(update={"samples_ms": bounds[row.cell].samples_ms, "speedup": bounds[row.cell].speedup})
        if row.architecture == "kraken"
        else row
        for row in result.rows
    ]
    found = headline(twins)
    for column in ("geomean_speedup", "geomean_speedup_low", "geomean_speedup_high"):
        assert getattr(entry(found, "kraken"), column) == getattr(entry(found, BOUND), column)


def test_the_same_rows_give_the_same_headline(tmp_path: Path) -> None:
    result = real.ttft(tmp_path)
    assert headline(result.rows) == result.headline
    assert verdicts(result.rows) == result.verdicts


def test_a_projection_has_kinds_of_its_own(tmp_path: Path) -> None:
    result = real.projection(tmp_path)
    kinds = {(found.architecture, found.kind) for found in result.headline.all}
    assert {("kraken", "projected"), ("kraken", "quoted"), ("parallel", "quoted")} <= kinds
    assert ("ladder", "quoted") not in kinds
    (quoted,) = (one for one in result.headline.all if (one.architecture, one.kind) == ("kraken", "quoted"))
    speedups = [row.published_speedup for row in result.rows if row.architecture == "kraken"]
    root = math.prod(1 + value for value in speedups) ** (1 / len(speedups))
    assert quoted.geomean_speedup == pytest.approx(root - 1)
    assert all(found.geomean_speedup_low is None for found in result.headline.all)  # no samples, no interval


def test_breakdowns_and_timelines_have_one_form(tmp_path: Path) -> None:
    measured, projected = real.ttft(tmp_path), real.projection(tmp_path)
    for row in projected.rows:
        assert row.breakdown_ms.total == pytest.approx(row.projected_ms)
    assert measured.breakdown[0].breakdown_ms.all_reduce == 3.0
    assert measured.breakdown[0].breakdown_ms.total == measured.breakdown[0].total_ms == 10.0
    for result, kind in ((measured, "measured"), (projected, "projected")):
        assert result.timelines and {one.kind for one in result.timelines} == {kind}
        events = next(one for one in result.timelines if one.architecture == "kraken").events
        assert {event.lane for event in events} == {"compute", "communication"}
        assert all(event.end_ms >= event.begin_ms for event in events)
        assert {event.part for event in events if event.lane == "communication"} == {"all_reduce"}
    for trace in measured.traces:
        assert Path(trace).stat().st_size > 0


def test_the_file_says_what_one_launch_cannot_tell_and_tables_show_no_interval_of_few_rounds(tmp_path: Path) -> None:
    result = real.ttft(tmp_path, links=("loopback",), crowded=())
    assert result.protocol.launches == 1
    assert "one launch: how launches differ is not in it; none below 6 rounds" in result.protocol.interval
    row = result.rows[0].model_copy(update={"ttft_ms_low": None, "ttft_ms_high": None})
    shown = ttft_table([row]).splitlines()[-1].split()
    assert shown[:3] == [row.architecture, f"{row.ttft_ms_median:.1f}", "–"]
