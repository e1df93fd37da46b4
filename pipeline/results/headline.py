"""Geometric means over many cells, an architecture, kind and rival each: computed once, where the rows are made."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from pipeline.results.cell import BASELINE, BOUND, EXACT_RIVAL, NO_LINK, Cell, TimedRow
from pipeline.results.file import Row, Typed
from pipeline.results.kinds import Kind
from pipeline.results.statistics import Compared, Ends, Over, geomean, geomean_interval

RIVALS = (BASELINE, EXACT_RIVAL)


class HeadlineEntry(Row):
    """One architecture over many cells, against the baseline or the exact rival. Computed where the rows are made."""

    architecture: str = Field(description="label of the architecture, or no_communication for the bound")
    against: str = Field(
        BASELINE, description="what its speedup is over: standard, or standard_split, which is exact and overlaps too"
    )
    geomean_speedup: float = Field(description="geometric mean over the cells of 1 + speedup, minus 1")
    geomean_speedup_low: float | None = Field(
        description="lower end of its 95% interval; null where a cell has too few launches or rounds, or another number"
    )
    geomean_speedup_high: float | None = Field(description="upper end of its 95% interval")
    interval_over: Over | None = Field(None, description="what that interval is over; null: there is none")
    least_speedup: float = Field(description="the least of the cells")
    most_speedup: float = Field(description="the most of the cells")
    median_share_hidden: float | None = Field(
        description="median over the cells of share_hidden; null against standard_split"
    )
    least_share_hidden: float | None = Field(description="the least of the cells")
    exposed_low: float | None = Field(
        None, description="least share of the baseline's time that is exposed communication, over the cells"
    )
    exposed_high: float | None = Field(None, description="the most of the cells")
    rows: int = Field(description="number of cells")
    cells: list[Cell] = Field(description="the cells covered")
    oversubscribed: bool = Field(description="ranks exceed cores in these cells: shows order, not overlap")
    busy: int = Field(0, description="of the cells, those timed while the machine was busy with something else")

    @property
    def metric(self) -> str:
        """What a tracker calls its geometric mean; a kind other than measured is named."""
        over = "" if self.against == BASELINE else f"_over_{self.against}"
        kind = "" if self.kind == "measured" else re.sub(r"\W+", "_", f" {self.kind}")
        return f"{self.architecture}_geomean_speedup{over}{kind}"


class Headline(Typed):
    """Entries an architecture, kind and rival; rows without communication have no part in it."""

    all: list[HeadlineEntry] = Field(description="over all cells whose ranks had cores of their own; else over all")
    named: list[HeadlineEntry] = Field(
        description="over those of them that benchmark.headline_links and headline_contexts name; empty: none named"
    )
    missing: list[str] = Field(
        default_factory=list, description="links of benchmark.headline_links that were not timed: `named` lacks them"
    )


@dataclass(frozen=True)
class Named:
    """The cells that a benchmark names before it measures: of these links and prompt lengths; empty: of any."""

    links: Sequence[str] = ()
    contexts: Sequence[int] = ()

    @property
    def is_any(self) -> bool:
        """Whether nothing is named."""
        return not self.links and not self.contexts

    def __contains__(self, cell: Cell) -> bool:
        return (not self.links or cell.link in self.links) and (not self.contexts or cell.context in self.contexts)


def headline(rows: Sequence[TimedRow], named: Named | None = None) -> Headline:
    """Entries over `rows`, never across kinds; without `named` cells there are none of those.

    Rows without communication are left out: they say nothing about a speedup. Where no cell of a kind had cores
    enough for its ranks, the crowded ones stand and say so.
    """
    every: list[HeadlineEntry] = []
    chosen: list[HeadlineEntry] = []
    for own in by_kind(rows).values():
        every += _entries(own)
        if named is not None and not named.is_any:
            chosen += _entries([row for row in own if row.cell in named])
    timed = {row.link for row in rows}
    return Headline(all=every, named=chosen, missing=[link for link in (named or Named()).links if link not in timed])


def by_kind(rows: Sequence[TimedRow]) -> dict[Kind, list[TimedRow]]:
    """The rows that a headline is over: with communication, and with cores of their own where any of the kind had."""
    told = [row for row in rows if row.link != NO_LINK]
    found: dict[Kind, list[TimedRow]] = {}
    for kind in dict.fromkeys(row.kind for row in told):
        own = [row for row in told if row.kind == kind]
        found[kind] = [row for row in own if not row.is_crowded] or own
    return found


def _entries(rows: Sequence[TimedRow]) -> list[HeadlineEntry]:
    """Of one kind: every architecture against the baseline, then all but the bound against the exact rival."""
    entries: list[HeadlineEntry] = []
    for against in RIVALS:
        rivals = {row.cell: row for row in rows if row.architecture == against}
        skipped = (BASELINE,) if against == BASELINE else (BASELINE, BOUND, against)
        known = [row for row in rows if row.architecture not in skipped and speedup(row, rivals, against) is not None]
        entries += [
            _entry([row for row in known if row.architecture == architecture], rivals, against, rows)
            for architecture in dict.fromkeys(row.architecture for row in known)
        ]
    return entries


def _entry(
    own: Sequence[TimedRow], rivals: Mapping[Cell, TimedRow], against: str, rows: Sequence[TimedRow]
) -> HeadlineEntry:
    speedups = [value for row in own if (value := speedup(row, rivals, against)) is not None]
    is_baseline = against == BASELINE
    shares = [row.share_hidden for row in own if row.share_hidden is not None and is_baseline]
    cells = [row.cell for row in own]
    exposed = [
        row.exposed_communication_ms / row.milliseconds
        for row in rows
        if row.architecture == BASELINE and row.exposed_communication_ms is not None and row.cell in cells
    ]
    (low, high), over = sure(own, [rivals.get(cell) for cell in cells])
    return HeadlineEntry(
        kind=own[0].kind,
        architecture=own[0].architecture,
        against=against,
        geomean_speedup=geomean(speedups),
        geomean_speedup_low=low,
        geomean_speedup_high=high,
        interval_over=over,
        least_speedup=min(speedups),
        most_speedup=max(speedups),
        median_share_hidden=float(np.median(shares)) if shares else None,
        least_share_hidden=min(shares) if shares else None,
        exposed_low=min(exposed, default=None),
        exposed_high=max(exposed, default=None),
        rows=len(own),
        cells=cells,
        oversubscribed=any(row.is_crowded for row in own),
        busy=sum(row.is_disturbed for row in own),
    )


def busy_words(busy: int, cells: int) -> str:
    """How many of its cells are to be doubted; empty where none is."""
    if not busy:
        return ""
    return "machine busy" if cells == 1 else f"machine busy in {busy} of {cells} cells"


def speedup(row: TimedRow, rivals: Mapping[Cell, TimedRow], against: str) -> float | None:
    """t_rival / t − 1 from both speedups over the baseline, which is all that is known of some rows; None: unknown."""
    if against == BASELINE or row.speedup is None:
        return row.speedup
    rival = rivals.get(row.cell)
    return None if rival is None or rival.speedup is None else (1 + row.speedup) / (1 + rival.speedup) - 1


def sure(own: Sequence[TimedRow], rivals: Sequence[TimedRow | None]) -> tuple[Ends, Over | None]:
    """The 95% interval of the geometric mean of t_rival / t − 1, cell by cell, and what it is over.

    None where a row has no samples, or too few.
    """
    compared = [_compared(row, rival) for row, rival in zip(own, rivals, strict=True)]
    known = [one for one in compared if one is not None]
    ends = geomean_interval(known) if len(known) == len(compared) else (None, None)
    return ends, None if ends[0] is None else known[0].over


def _compared(row: TimedRow, rival: TimedRow | None) -> Compared | None:
    """The samples behind both rows' times, where both have them."""
    if row.launches is None or rival is None or rival.launches is None:
        return None
    return Compared(rival.launches, row.launches, row.alternates and rival.alternates)
