"""Which architecture is fastest in every cell, whether it can be told from the next, and where none beats standard."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pipeline.results.cell import BASELINE, BOUND, Cell, TimedRow
from pipeline.results.file import Row
from pipeline.results.headline import Named, by_kind, speedup, sure
from pipeline.results.statistics import Over, geomean

VerdictScope = Literal["all", "named", "cell"]


class CellVerdict(Row):
    """Which architecture is fastest, in one cell or over several, and whether that can be told from the next.

    Intervals are of this pair alone, which was chosen after measuring, and not corrected for the number of pairs.
    """

    scope: VerdictScope = Field(description="all: over all cells; named: over those named beforehand; cell: of one")
    cells: list[Cell] = Field(description="the cells")
    fastest: str = Field(description="label of the fastest architecture, the baseline among them")
    speedup: float = Field(description="its own over the baseline, geometric mean over the cells; 0 for the baseline")
    next: str = Field(description="the second")
    lead: float = Field(description="t_next / t_fastest − 1, geometric mean over the cells")
    lead_low: float | None = Field(description="lower end of its 95% interval, or null")
    lead_high: float | None = Field(description="upper end of its 95% interval")
    interval_over: Over | None = Field(description="what that interval is over; null: there is none")
    told_apart: bool | None = Field(description="whether that interval is above 0; null: there is none")
    beats_standard: list[str] = Field(
        description="architectures whose speedup's 95% interval is above 0; without intervals, whose speedup is; "
        "empty: none beats the baseline"
    )
    oversubscribed: bool = Field(description="ranks exceed cores in these cells: shows order, not overlap")
    busy: int = Field(0, description="of the cells, those timed while the machine was busy with something else")


@dataclass(frozen=True)
class _Runner:
    """An architecture with a speedup in each of the cells."""

    rows: list[TimedRow]  # in the cells' order

    @property
    def name(self) -> str:
        return self.rows[0].architecture

    @property
    def speedup(self) -> float:
        return geomean([row.speedup for row in self.rows if row.speedup is not None])


def verdicts(rows: Sequence[TimedRow], named: Named | None = None) -> list[CellVerdict]:
    """Of each kind: over all cells and over the named ones, where these are several, then cell by cell.

    The same rows count as in a headline, the bound's excepted. Over several cells an architecture counts that stands
    in all of them; nothing is said where there is none beside the baseline.
    """
    found: list[CellVerdict | None] = []
    for own in by_kind(rows).values():
        cells = list(dict.fromkeys(row.cell for row in own))
        chosen = [cell for cell in cells if named is not None and not named.is_any and cell in named]
        found += [_verdict(own, many, scope) for many, scope in _scopes(cells, chosen)]
    return [one for one in found if one is not None]


def _scopes(cells: list[Cell], named: list[Cell]) -> Iterator[tuple[list[Cell], VerdictScope]]:
    if len(cells) > 1:
        yield cells, "all"
    if len(named) > 1:
        yield named, "named"
    for cell in cells:
        yield [cell], "cell"


def _verdict(rows: Sequence[TimedRow], cells: list[Cell], scope: VerdictScope) -> CellVerdict | None:
    runners = _runners(rows, cells)
    baseline = next((one for one in runners if one.name == BASELINE), None)
    first, *others = sorted(runners, key=lambda one: -one.speedup)
    if not others:
        return None
    ends, over = sure(first.rows, list(others[0].rows))
    lead = geomean([_lead(row, rival) for row, rival in zip(first.rows, others[0].rows, strict=True)])
    return CellVerdict(
        kind=first.rows[0].kind,
        scope=scope,
        cells=cells,
        fastest=first.name,
        speedup=first.speedup,
        next=others[0].name,
        lead=lead,
        lead_low=ends[0],
        lead_high=ends[1],
        interval_over=over,
        told_apart=None if ends[0] is None else ends[0] > 0,
        beats_standard=[one.name for one in runners if _beats(one, baseline)],
        oversubscribed=any(row.is_crowded for row in first.rows),
        busy=sum(row.is_disturbed for row in first.rows),
    )


def _runners(rows: Sequence[TimedRow], cells: list[Cell]) -> list[_Runner]:
    """What stands in all of `cells`; the baseline is its own measure there, where nothing else says so."""
    found = []
    for name in dict.fromkeys(row.architecture for row in rows if row.architecture != BOUND):
        by_cell = {row.cell: row for row in rows if row.architecture == name and row.speedup is not None}
        if all(cell in by_cell for cell in cells):
            found.append(_Runner([by_cell[cell] for cell in cells]))
    return found


def _lead(row: TimedRow, rival: TimedRow) -> float:
    found = speedup(row, {rival.cell: rival}, rival.architecture)
    assert found is not None  # runners have speedups
    return found


def _beats(one: _Runner, baseline: _Runner | None) -> bool:
    """Surely where intervals tell; where there are none, by the numbers."""
    if one.name == BASELINE:
        return False
    low = sure(one.rows, list(baseline.rows))[0][0] if baseline else None
    return one.speedup > 0 if low is None else low > 0


def said(verdict: CellVerdict) -> str:
    """The verdict in a sentence."""
    low, high = verdict.lead_low, verdict.lead_high
    ends = "" if low is None or high is None else f" ({low:+.1%} to {high:+.1%})"
    apart = {True: "", False: ", and cannot be told from it", None: "; no interval"}[verdict.told_apart]
    known = BASELINE in (verdict.fastest, verdict.next)  # then its lead says it
    over = "" if known else f", {verdict.speedup:+.1%} over {BASELINE}"
    ahead = f"{verdict.fastest} is fastest{over}; {verdict.lead:+.1%}{ends} over {verdict.next}, the next{apart}"
    winners = ", ".join(verdict.beats_standard)
    if not winners:
        return f"{ahead}. None {'surely ' * (verdict.told_apart is not None)}beats {BASELINE}."
    alone = ", by the numbers alone" * (verdict.told_apart is None)
    return f"{ahead}. Faster than {BASELINE}{alone}: {winners}."
