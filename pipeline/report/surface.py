"""Speedup over context and link as one figure and one table: the fitted model, and what was timed on it."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from pipeline.report.inputs import ordered
from pipeline.report.style import SETTINGS, Figure, canvas, finish, readable
from pipeline.report.table import Column, Table, flat
from pipeline.results import BASELINE, BOUND, SurfaceResult
from pipeline.results.surface import SurfacePoint, SurfaceRow

SHADES = "RdBu"  # told apart by all kinds of colour vision; blue: faster
MOST_SHADE = 1.5  # speedup beyond which the shade is full
SHADE_TICKS = (-0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5)
ON_LIGHT, ON_DARK = "#101010", "#f8f8f8"  # on shades, whatever the page's own colours are
GAP = 0.16  # decades between the fastest limited link and the strip of one without a limit
STRIP = 0.22  # decades high


def surface_figure(name: str, result: SurfaceResult, demo: str) -> Figure | None:
    """A panel an architecture; None where fewer than two contexts or two limited links were timed."""
    points = [point for point in result.points if point.link is None]
    if len({point.context for point in points}) < 2 or len({point.link_bits_per_s for point in points}) < 2:
        return None
    names = [one for one in ordered(point.architecture for point in points) if one not in (BASELINE, BOUND)]
    top = max(math.log10(point.link_bits_per_s) for point in points)
    columns = min(2, len(names))
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=0.9 + 3.1 * math.ceil(len(names) / columns))
        shades = matplotlib.cm.ScalarMappable(Normalize(-math.log1p(MOST_SHADE), math.log1p(MOST_SHADE)), SHADES)
        for index, architecture in enumerate(names):
            axes = drawing.add_subplot(math.ceil(len(names) / columns), columns, index + 1)
            _panel(axes, [point for point in result.points if point.architecture == architecture], top, shades)
            _timed(axes, [row for row in result.rows if row.architecture == architecture], top, shades)
            _axes(axes, result.rows, top)
            axes.set_title(readable(architecture))
            if index % columns == 0:
                axes.set_ylabel("link between ranks")
            if index >= len(names) - columns:
                axes.set_xlabel("context (tokens)")
        bar = drawing.colorbar(shades, ax=drawing.axes, shrink=0.8, ticks=[math.log1p(tick) for tick in SHADE_TICKS])
        bar.ax.set_yticklabels([f"{tick:+.0%}" if tick else "0" for tick in SHADE_TICKS])
        bar.set_label("speedup over standard (shade: projected by the fitted model; numbers: measured)")
        title = f"Speedup over context and link, {result.size} on {result.tp_size} ranks, {name}"
        kinds = ("measured", "projected")
        return finish(drawing, f"surface_{name}", title, _caption(result), kinds, demo)


def _panel(axes: Any, points: Sequence[SurfacePoint], top: float, shades: Any) -> None:
    """The model's shades, its break-even lines, and the strip above for links without a limit."""
    limited = [point for point in points if point.link is None]
    contexts = sorted({point.context for point in limited})
    rates = sorted({point.link_bits_per_s for point in limited})
    x, y = np.log2(contexts), np.log10(rates)
    gains, over_split = _mesh(limited, contexts, rates)  # (links, contexts)
    axes.pcolormesh(x, y, gains, cmap=shades.cmap, norm=shades.norm, shading="nearest")
    _line(axes, x, y, gains, "-")
    if over_split is not None:
        _line(axes, x, y, over_split, "--")
    for link in dict.fromkeys(point.link for point in points if point.link is not None):
        strip = [point for point in points if point.link == link]
        gains, over_split = _mesh(strip, contexts, sorted({point.link_bits_per_s for point in strip}))
        bottom = top + GAP
        axes.pcolormesh(
            x,
            [bottom + STRIP / 4, bottom + 3 * STRIP / 4],
            np.repeat(gains, 2, axis=0),
            cmap=shades.cmap,
            norm=shades.norm,
            shading="nearest",
        )
        for one, style in ((gains, "-"), (over_split, "--")):
            if one is not None:
                _line(axes, x, np.asarray([bottom, bottom + STRIP]), np.repeat(one, 2, axis=0), style)


def _mesh(points: Sequence[SurfacePoint], contexts: list[int], rates: list[float]) -> tuple[Any, Any | None]:
    """log(1 + speedup) over standard, and over its split where that was timed, (links, contexts) each."""
    by_place = {(point.link_bits_per_s, point.context): point for point in points}
    grid = [[by_place[rate, context] for context in contexts] for rate in rates]
    gains = np.log1p([[point.speedup for point in line] for line in grid])
    if any(point.speedup_over_split is None for point in points):
        return gains, None
    return gains, np.log1p([[point.speedup_over_split or 0.0 for point in line] for line in grid])


def _line(axes: Any, x: Any, y: Any, gains: Any, style: str) -> None:
    """Where gains are zero, if they are anywhere."""
    if gains.min() < 0 < gains.max():
        axes.contour(x, y, gains, levels=[0.0], colors=ON_LIGHT, linewidths=1.1, linestyles=style)


def _timed(axes: Any, rows: Sequence[SurfaceRow], top: float, shades: Any) -> None:
    """Timed cells with their measured speedup in percent: circles were used to fit, squares held out."""
    bound = math.log1p(MOST_SHADE)
    for row in rows:
        if row.measured_speedup is None:
            continue
        x, y = math.log2(row.context), _height(row, top)
        gain = math.log1p(row.measured_speedup)
        edge = ON_DARK if abs(gain) > 0.6 * bound else ON_LIGHT
        shade = shades.to_rgba(gain)
        axes.plot(
            x, y, "o" if row.fitted else "s", markersize=6, color=shade, markeredgecolor=edge, markeredgewidth=0.7
        )
        words = f"{round(100 * row.measured_speedup):+d}"
        axes.annotate(words, (x, y), (0, 5), textcoords="offset points", ha="center", fontsize=6.5, color=edge)


def _height(row: SurfaceRow, top: float) -> float:
    rate = math.log10(row.link_bits_per_s)
    return rate if is_limited(row) else top + GAP + STRIP / 2


def is_limited(row: SurfaceRow) -> bool:
    return row.link is not None and row.link[0].isdigit()


def _axes(axes: Any, rows: Sequence[SurfaceRow], top: float) -> None:
    contexts = sorted({row.context for row in rows})
    links = {str(row.link): _height(row, top) for row in rows}
    axes.set_xticks([math.log2(context) for context in contexts], [str(context) for context in contexts])
    axes.set_yticks(list(links.values()), list(links))
    axes.set_xlim(math.log2(contexts[0]) - 0.35, math.log2(contexts[-1]) + 0.35)
    axes.set_ylim(min(links.values()) - 0.15, max(links.values()) + 0.22)
    axes.grid(visible=False)


def _caption(result: SurfaceResult) -> str:
    held_out = [
        f"{readable(name.removeprefix('held_out_'))} {errors.mean_absolute_error:.1%}"
        for name, errors in result.errors.items()
        if name.startswith("held_out_")
    ]
    parts = [
        f"Shades: {result.method}. Numbers: speedup as measured, in percent; circles were used to fit, squares not.",
        "Solid line: break-even with standard",
        "; dashed: with standard_split, which is exact and overlaps. "
        if any(point.speedup_over_split is not None for point in result.points)
        else ". ",
    ]
    errors = {name: one.mean_absolute_error for name, one in result.errors.items()}
    if "fitted" in errors:
        parts.append(f"Mean absolute error of times: fitted {errors['fitted']:.1%}")
        parts.append(f", other cells {errors['held_out']:.1%}" if "held_out" in errors else "")
        parts.append(f", wholly held out: {', '.join(held_out)}." if held_out else ".")
    return " ".join(parts[:2]) + "".join(parts[2:])


def surface_table(name: str, result: SurfaceResult, demo: str) -> Table | None:
    """Where each architecture stops being faster, a row a context."""
    rows = [
        {
            **flat(row),
            "rate": None if row.link_bits_per_s is None else row.link_bits_per_s / 1e6,
            "rate_low": None if row.low is None else row.low / 1e6,
            "rate_high": None if row.high is None else row.high / 1e6,
        }
        for row in result.break_even
    ]
    if not rows:
        return None
    columns = [
        Column("architecture", "Architecture"),
        Column("against", "Against"),
        Column("context", "Context", "tokens", "integer"),
        Column("wins", "Faster"),
        Column("rate", "Link", "Mbit/s", "number", 0, interval=True),
    ]
    values = [
        f"{name} {one.value:.3g}{'' if one.low is None else f' ({one.low:.3g} to {one.high:.3g})'} {one.unit}"
        for name, one in result.values.items()
    ]
    errors = [
        f"{name} {one.mean_absolute_error:.1%} over {one.rows} rows (bias {one.bias:+.1%}, worst {one.worst:+.1%})"
        for name, one in result.errors.items()
    ]
    without = [
        f"without {' and '.join(one.left_out)}: "
        + ", ".join(f"{name} {error.mean_absolute_error:.1%}" for name, error in one.errors.items())
        for one in result.without
    ]
    notes = (
        f"Of the fitted model, over limited links from {_rate(result, min)} to {_rate(result, max)}: {result.method}. "
        "What the model gets wrong is in no interval.",
        f"Fitted: {'; '.join(values)}.",
        f"Mean absolute errors of times: {'; '.join(errors)}.",
        f"{'; '.join(without)}.",
    )
    return Table(
        f"surface_{name}", f"Where each architecture breaks even, {name}", columns, rows, notes=notes, demo=demo
    )


def _rate(result: SurfaceResult, which: Any) -> str:
    return f"{which(point.link_bits_per_s for point in result.points if point.link is None) / 1e6:,.0f} Mbit/s"
