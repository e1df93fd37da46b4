"""Rows and headlines from the real writers: what is averaged with what, and against independent arithmetic."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.benchmark.text import headline_text, ttft_table
from pipeline.results import BASELINE, BOUND, TtftResult
from pipeline.results.headline import headline
from pipeline.results.ttft import NO_LINK, HeadlineEntry, TtftRow
from tests.unit import result_files as real

MODELLED = "measured compute, modelled communication"


def entry(result: TtftResult, architecture: str, band: str = "all") -> HeadlineEntry:
    (found,) = (one for one in getattr(result.headline, band) if one.architecture == architecture)
    assert isinstance(found, HeadlineEntry)
    return found


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


def test_the_headline_is_the_geometric_mean_of_the_rows_it_names(tmp_path: Path) -> None:
    result = real.ttft(tmp_path, crowded=(4,))
    for found in result.headline.all:
        own = [row for row in rows_of(result, found.architecture) if not row.oversubscribed]
        speedups = [row.speedup for row in own]
        expected = math.prod(1 + value for value in speedups) ** (1 / len(own)) - 1
        assert found.geomean_speedup == pytest.approx(expected)
        assert found.geomean_speedup_low < found.geomean_speedup < found.geomean_speedup_high
        assert (found.least_speedup, found.most_speedup) == (min(speedups), max(speedups))
        assert found.cells == [row.cell for row in own] and found.rows == len(own) == 6
        assert found.median_share_hidden == pytest.approx(np.median([row.share_hidden for row in own]))
        assert not found.oversubscribed and found.kind == "measured"
    assert BASELINE not in {found.architecture for found in result.headline.all}


def test_crowded_cells_stand_alone_only_where_there_are_no_others(tmp_path: Path) -> None:
    mixed = real.ttft(tmp_path, crowded=(4,))
    assert {cell.tp_size for found in mixed.headline.all for cell in found.cells} == {2}
    crowded = real.ttft(tmp_path, crowded=(2, 4))
    assert crowded.headline.all and all(found.oversubscribed for found in crowded.headline.all)
    assert "ranks exceed cores" in headline_text(crowded.headline)


def test_the_band_keeps_cells_by_the_baselines_exposed_share(tmp_path: Path) -> None:
    def on_some_links(link: str) -> real.Milliseconds:
        slow = link == "300mbit"
        return lambda name, mode: real.milliseconds(name, mode) + (100.0 if slow and mode == "overlapped" else 0.0)

    rows = [
        row
        for link in ("loopback", "300mbit")
        for row in real.ttft(tmp_path, links=(link,), crowded=(), of=on_some_links(link)).rows
    ]
    found = headline(rows)
    everywhere = {cell.link for one in found.all for cell in one.cells}
    in_band = {cell.link for one in found.exposed_band for cell in one.cells}
    assert (everywhere, in_band) == ({"loopback", "300mbit"}, {"loopback"})  # 8 of 20 ms is 40%, 108 of 120 is not


def test_rows_without_communication_have_no_part_in_a_headline(tmp_path: Path) -> None:
    """Compute alone says an architecture is slow, communication that it is fast: never one number of both."""
    result = real.one_rank(tmp_path, of=lambda name, mode: {"skipped": 10.0, "overlapped": 12.0}[mode] * FACTORS[name])
    alone = [row for row in result.rows if row.link == NO_LINK]
    modelled = [row for row in result.rows if row.link != NO_LINK]
    assert {row.kind for row in alone} == {"measured"} and {row.kind for row in modelled} == {MODELLED}
    assert {row.architecture for row in alone} == set(FACTORS) and all(row.collectives == 0 for row in alone)
    assert {row.ranks_measured for row in result.rows} == {1}
    assert {found.kind for found in result.headline.all} == {MODELLED}
    kraken = entry(result, "kraken")
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


def test_one_draw_serves_all_architectures_of_a_cell(tmp_path: Path) -> None:
    """An architecture that takes the bound's very rounds has the bound's very interval."""
    result = real.ttft(tmp_path, links=("loopback",), crowded=())
    bounds = {row.cell: row for row in rows_of(result, BOUND)}
    twins = [
        row.model_copy(update={"samples_ms": bounds[row.cell].samples_ms, "speedup": bounds[row.cell].speedup})
        if row.architecture == "kraken"
        else row
        for row in result.rows
    ]
    found = {one.architecture: one for one in headline(twins).all}
    for column in ("geomean_speedup", "geomean_speedup_low", "geomean_speedup_high"):
        assert getattr(found["kraken"], column) == getattr(found[BOUND], column)


def test_the_same_rows_give_the_same_headline(tmp_path: Path) -> None:
    result = real.ttft(tmp_path)
    assert headline(result.rows) == result.headline


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
