"""Geometric means over many cells, an architecture and kind each: computed once, where the rows are made."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.results.kinds import Kind
from pipeline.results.statistics import Compared, geomean, geomean_interval
from pipeline.results.ttft import BASELINE, EXPOSED_BAND, NO_LINK, Cell, Headline, HeadlineEntry, TimedRow


def headline(rows: Sequence[TimedRow]) -> Headline:
    """Entries over `rows`, never across kinds.

    Rows without communication are left out: they say nothing about a speedup. Where no cell of a kind had cores
    enough for its ranks, the crowded ones stand and say so.
    """
    told = [row for row in rows if row.link != NO_LINK]
    every: list[HeadlineEntry] = []
    band: list[HeadlineEntry] = []
    for kind in dict.fromkeys(row.kind for row in told):
        own = [row for row in told if row.kind == kind]
        chosen = [row for row in own if not row.is_crowded] or own
        baselines = {row.cell: row for row in chosen if row.architecture == BASELINE}
        exposed = {cell for cell, row in baselines.items() if _is_in_band(row)}
        every += _entries(kind, chosen, baselines)
        band += _entries(kind, [row for row in chosen if row.cell in exposed], baselines)
    return Headline(all=every, exposed_band=band)


def _is_in_band(row: TimedRow) -> bool:
    low, high = EXPOSED_BAND
    exposed = row.exposed_communication_ms
    return exposed is not None and low <= exposed / row.milliseconds <= high


def _entries(kind: Kind, rows: Sequence[TimedRow], baselines: Mapping[Cell, TimedRow]) -> list[HeadlineEntry]:
    entries = []
    for architecture in dict.fromkeys(row.architecture for row in rows if row.architecture != BASELINE):
        own = [row for row in rows if row.architecture == architecture and row.speedup is not None]
        if not own:
            continue
        speedups = [row.speedup for row in own if row.speedup is not None]
        shares = [row.share_hidden for row in own if row.share_hidden is not None]
        compared = [_compared(row, baselines.get(row.cell)) for row in own]
        known = [one for one in compared if one is not None]
        low, high = geomean_interval(known) if len(known) == len(own) else (None, None)
        entries.append(
            HeadlineEntry(
                kind=kind,
                architecture=architecture,
                geomean_speedup=geomean(speedups),
                geomean_speedup_low=low,
                geomean_speedup_high=high,
                least_speedup=min(speedups),
                most_speedup=max(speedups),
                median_share_hidden=float(np.median(shares)) if shares else None,
                least_share_hidden=min(shares) if shares else None,
                rows=len(own),
                cells=[row.cell for row in own],
                oversubscribed=any(row.is_crowded for row in own),
            )
        )
    return entries


def _compared(row: TimedRow, baseline: TimedRow | None) -> Compared | None:
    """The samples behind a row's speedup, where both rows have them."""
    if row.launches is None or baseline is None or baseline.launches is None:
        return None
    return Compared(baseline.launches, row.launches, row.alternates)
