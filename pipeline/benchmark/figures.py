"""The benchmark's own figures: speedup against bandwidth, and the two lanes of a forward."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.config.link import LOOPBACK, bits_per_second

COLOURS = {
    "standard": "#555555",
    "parallel": "#d98c2b",
    "kraken": "#2b6cb0",
    "ladder": "#3a9a5b",
    "desync": "#8e5bb5",
    "no_communication": "#bbbbbb",
}
PERCENT_TICKS = (-50, -25, 0, 25, 50, 100, 200, 400, 800)  # on a logarithmic axis
LOG_ABOVE = 2.0  # speedups beyond this would flatten all others on a linear axis
KIND_COLOURS = {
    "norm": "#c9b458",
    "gemm": "#2b6cb0",
    "overlapped_gemm": "#6fb1e8",
    "attention": "#3a9a5b",
    "lm_head": "#8e5bb5",
    "allreduce": "#c0504d",
    "other": "#cccccc",
}


def speedup_by_link(rows: Sequence[dict[str, Any]], folder: Path, stem: str) -> list[Path]:
    """Speedup over standard against link speed, a panel per size and number of ranks, geometric mean over prompts.

    Writes PNG and SVG; nothing, and an empty list, where fewer than two links were measured.
    """
    links = sorted({row["link"] for row in rows}, key=_rate)
    if len(links) < 2:
        return []
    panels = sorted({(row["size"], row["tp_size"]) for row in rows})
    figure, axes = _subplots(len(panels), height=4.2)
    positions = range(len(links))
    for axis, (size, tp_size) in zip(axes, panels, strict=True):
        chosen = [row for row in rows if (row["size"], row["tp_size"]) == (size, tp_size)]
        for name, colour in COLOURS.items():
            own = [row for row in chosen if row["architecture"] == name]
            if not own or name == "standard":
                continue
            values = [_geomean([row["speedup"] for row in own if row["link"] == link]) for link in links]
            lows = [_geomean([row["speedup_low"] for row in own if row["link"] == link]) for link in links]
            highs = [_geomean([row["speedup_high"] for row in own if row["link"] == link]) for link in links]
            style = "--" if name == "no_communication" else "-"
            axis.plot(
                positions, [100 * v for v in values], style, marker="o", color=colour, label=name.replace("_", " ")
            )
            axis.fill_between(positions, [100 * v for v in lows], [100 * v for v in highs], color=colour, alpha=0.15)
        axis.axhline(0, color="black", linewidth=0.8)
        if max(row["speedup"] for row in chosen) > LOG_ABOVE:
            axis.set_yscale("symlog", linthresh=50)
            low, high = axis.get_ylim()
            ticks = [tick for tick in PERCENT_TICKS if low <= tick <= high]
            axis.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
            axis.minorticks_off()
        axis.set_xticks(list(positions), links, rotation=45, ha="right")
        note = ", ranks exceed cores" if chosen[0]["oversubscribed"] else ""
        axis.set_title(f"{size}, TP {tp_size}{note}")
        axis.set_xlabel("link")
    axes[0].set_ylabel("speedup over standard, %")
    axes[0].legend()
    return _save(figure, folder / stem)


def timelines(events: dict[str, list[dict[str, Any]]], folder: Path, stem: str, title: str) -> list[Path]:
    """Two lanes an architecture, as the paper's Figure 3 draws them; `events` by architecture."""
    if not events:
        return []
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    figure, axes = pyplot.subplots(len(events), 1, figsize=(11, 1.3 * len(events) + 1.2), sharex=True, squeeze=False)
    for axis, (name, lane_events) in zip(axes[:, 0], events.items(), strict=True):
        for event in lane_events:
            row = 1 if event["lane"] == "compute" else 0
            axis.barh(
                row, event["duration_ms"], left=event["begin_ms"], height=0.8, color=KIND_COLOURS[event["kind"]],
                edgecolor="white", linewidth=0.2,
            )  # fmt: skip
        axis.set_yticks([0, 1], ["communication", "compute"])
        axis.set_title(name, loc="left", fontsize=9)
    axes[-1, 0].set_xlabel("ms")
    figure.suptitle(title, fontsize=10)
    handles = [Patch(color=colour, label=kind.replace("_", " ")) for kind, colour in KIND_COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncol=len(handles), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return _save(figure, folder / stem)


def _subplots(count: int, height: float) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, count, figsize=(5.2 * count + 0.8, height), squeeze=False, sharey=True)
    return figure, list(axes[0])


def _geomean(speedups: Sequence[float]) -> float:
    """Geometric mean of the ratios 1 + s, less one."""
    return float(np.exp(np.mean(np.log1p(speedups))) - 1)


def _rate(link: str) -> float:
    return float("inf") if link == LOOPBACK else (bits_per_second(link) or 0.0)


def _save(figure: Any, stem: Path) -> list[Path]:
    from matplotlib import pyplot

    written = []
    for suffix in ("png", "svg"):
        path = stem.with_suffix(f".{suffix}")
        with files.atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=130, bbox_inches="tight")
        written.append(path)
    pyplot.close(figure)
    return written
