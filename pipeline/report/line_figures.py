"""Figures of TTFT and speedup as lines: over the number of ranks (the paper's Figure 2) and over the link."""

from collections.abc import Callable

import matplotlib

from pipeline.report.inputs import Body
from pipeline.report.speed import BOUND, SHOWN, TIME
from pipeline.report.speed_figures import label
from pipeline.report.style import SETTINGS, Figure, canvas, colour, finish, readable


def against_tp(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """TTFT over the number of ranks: the paper's Figure 2."""
    key = TIME[kind]
    rows = [row for row in body.get("rows", []) if row.get(key) is not None and row.get("batch_size", 1) == 1]
    sizes = list(dict.fromkeys(row.get("size") for row in rows))
    if len({row.get("tp_size") for row in rows}) < 2:
        return None
    size = sizes[min(1, len(sizes) - 1)]
    rows = [row for row in rows if row.get("size") == size]
    contexts = sorted({row["context"] for row in rows})
    links = [row.get("link") for row in rows]

    def line(context: int, architecture: str) -> list[tuple[float, float]]:
        return sorted(
            (row["tp_size"], row[key])
            for row in rows
            if row["context"] == context and row["architecture"] == architecture and row.get("link") == links[0]
        )

    return _lines(
        f"ttft_tp_{name}",
        f"TTFT against ranks, {label(name, body, kind)}",
        [f"{size}, {context} tokens" for context in contexts],
        [name_ for name_ in SHOWN if any(row["architecture"] == name_ for row in rows)],
        lambda panel, architecture: line(contexts[panel], architecture),
        ("ranks (TP)", f"TTFT, {kind} (ms)"),
        "Counterpart of the paper's Figure 2.",
        kind,
        demo,
        ticks=sorted({row["tp_size"] for row in rows}),
    )


def against_link(name: str, body: Body, demo: str) -> Figure | None:
    """Speedup over the link's bandwidth, measured: the paper conjectures it only."""
    rows = [(row, _megabits(row.get("link"))) for row in body.get("rows", []) if row.get("speedup") is not None]
    rated = [(row, rate) for row, rate in rows if rate is not None]
    if len({rate for _, rate in rated}) < 2:
        return None
    panels = list(dict.fromkeys((row.get("size"), row.get("context"), row.get("tp_size")) for row, _ in rated))[:4]
    return _lines(
        f"speedup_link_{name}",
        f"Speedup against the link, {name}",
        [f"{size} @ {context}, TP {tp_size}" for size, context, tp_size in panels],
        [name_ for name_ in SHOWN if name_ != "standard" and any(row["architecture"] == name_ for row, _ in rated)],
        lambda panel, architecture: sorted(
            (rate, 100 * row["speedup"])
            for row, rate in rated
            if (row.get("size"), row.get("context"), row.get("tp_size")) == panels[panel]
            and row["architecture"] == architecture
        ),
        ("link (Mbit/s)", "speedup over standard (%)"),
        "Rate-limited links; the loopback is left out, since it has no set rate.",
        "measured",
        demo,
        log_x=True,
    )


def link_sweep(name: str, body: Body) -> Figure | None:
    """Projected geometric mean speedup over the link's bandwidth."""
    rows = body.get("link_sweep") or []
    if len({row["link_bandwidth_bytes_per_s"] for row in rows}) < 2:
        return None
    return _lines(
        f"link_sweep_{name}",
        f"Speedup against the link, {label(name, body, 'projected')}",
        [""],
        [name_ for name_ in SHOWN if name_ != BOUND and any(row["architecture"] == name_ for row in rows)],
        lambda _, architecture: sorted(
            (row["link_bandwidth_bytes_per_s"] / 1e9, 100 * row["geomean_speedup"])
            for row in rows
            if row["architecture"] == architecture
        ),
        ("link bandwidth (GB/s per direction)", "geometric mean speedup (%)"),
        "Over the whole grid, everything but the link's bandwidth unchanged. The paper does not vary its link. "
        "The bound is left out: it grows without limit on slow links.",
        "projected",
        "",
        log_x=True,
    )


def _lines(
    name: str,
    title: str,
    panels: list[str],
    architectures: list[str],
    points: Callable[[int, str], list[tuple[float, float]]],
    labels: tuple[str, str],
    caption: str,
    kind: str,
    demo: str,
    log_x: bool = False,
    ticks: list[int] | None = None,
) -> Figure:
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=max(5.4, min(9.6, 3.4 * len(panels))), height=3.2)
        for panel, heading in enumerate(panels):
            axes = drawing.add_subplot(1, len(panels), panel + 1)
            for index, architecture in enumerate(architectures):
                found = points(panel, architecture)
                if found:
                    style = "--" if kind == "projected" else "-"
                    axes.plot(
                        *zip(*found, strict=True),
                        f"o{style}",
                        color=colour(architecture, index),
                        markersize=4,
                        label=readable(architecture),
                    )
            if log_x:
                axes.set_xscale("log")
                axes.minorticks_off()
            if ticks:
                axes.set_xticks(ticks)
            axes.set_title(heading)
            axes.set_xlabel(labels[0])
            if panel == 0:
                axes.set_ylabel(labels[1])
                drawing.legend(loc="outside upper center", ncols=6, fontsize=8)
        return finish(drawing, name, title, caption, kind, demo)


def _megabits(link: str | None) -> float | None:
    """The rate of a link's name, as 300mbit or 2gbit; None for a link without one."""
    for ending, factor in (("gbit", 1000.0), ("mbit", 1.0), ("kbit", 0.001)):
        if link and link.endswith(ending):
            try:
                return float(link.removesuffix(ending)) * factor
            except ValueError:
                return None
    return None
