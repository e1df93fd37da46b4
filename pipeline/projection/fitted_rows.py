"""Which rows of a benchmark its surface is fitted to: chosen before anything is timed.

Of the fitted architectures and the bound, every second cell as on a chessboard of contexts and links, the first
included. Their other cells, and every row of another architecture, are held out; but not the bound's, which depends on
no link: most of its rows in other cells are fitted ones, timed again.
What a sum on its way takes from a core shows only where it is hidden, so one fitted architecture is the exact baseline
that overlaps; the fit without that term does without it too.
"""

import math
from collections.abc import Collection, Sequence

from pipeline.config.link import bits_per_second, delay_seconds
from pipeline.errors import ConfigError
from pipeline.projection.fit import OPTIONAL, too_few
from pipeline.results.cell import BASELINE, BOUND, EXACT_RIVAL

BLOCKING = (BASELINE, "parallel", BOUND)  # fitted architectures that hide nothing
FITTED_ARCHITECTURES = (*BLOCKING, EXACT_RIVAL)
LEFT_OUT: tuple[tuple[str, ...], ...] = (*((name,) for name in OPTIONAL), tuple(OPTIONAL))  # by fits that lack terms


def fitted_cells(cells: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of (context, link) that are fitted; links of equal rate are in the order of their names."""
    contexts = sorted({context for context, _ in cells})
    links = sorted({link for _, link in cells}, key=lambda link: (bits_per_second(link) or math.inf, link))
    return {(context, link) for context, link in cells if (contexts.index(context) + links.index(link)) % 2 == 0}


def fitted_architectures(left_out: Sequence[str]) -> tuple[str, ...]:
    """Those that a fit without these terms of the model is made to."""
    return BLOCKING if "link_cpu_s_per_byte" in left_out else FITTED_ARCHITECTURES


def is_held_out(architecture: str, fitted: bool) -> bool:
    """Whether a row says how well the fit foretells."""
    return not fitted and architecture != BOUND


def check(cells: Collection[tuple[int, str]], architectures: Collection[str]) -> None:
    """Raise ConfigError where a surface of these (context, link) and labels, the bound's too, cannot be fitted."""
    if delayed := sorted({link for _, link in cells if delay_seconds(link)}):
        raise ConfigError(
            f"link.links={delayed}: benchmark.surface=true knows links by their rate alone; name them without their "
            "delay, or set benchmark.surface=false"
        )
    for left_out in ((), *LEFT_OUT):
        fitted = [name for name in architectures if name in fitted_architectures(left_out)]
        if fault := too_few(len(fitted_cells(cells)) * len(fitted), left_out):
            raise ConfigError(f"benchmark.surface=true, of every second cell {fitted}: {fault}")
