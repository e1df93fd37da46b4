"""Figures of Time To First Token: counterparts of the paper's Figures 2 to 7."""

from collections.abc import Callable
from typing import Any

import matplotlib

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Body
from pipeline.report.speed import PAPER_ARCHITECTURES, SHOWN, TIME
from pipeline.report.style import COLOURS, HATCH, INK, SETTINGS, Figure, canvas, colour, finish, readable
from pipeline.report.table import Row

MAX_CELLS = 20


def cells_of(rows: list[Row], key: str) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Rows that carry `key`, by size, context, ranks and link, then by architecture."""
    cells: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row.get(key) is not None and row.get("batch_size", 1) == 1:
            place = (row.get("size"), row.get("context"), row.get("tp_size"), row.get("link"))
            cells.setdefault(place, {})[row["architecture"]] = row
    return cells


def _label(place: tuple[Any, ...], links: bool) -> str:
    size, context, tp_size, link = place
    return f"{size} @ {context}\nTP {tp_size}" + (f"\n{link}" if links and link else "")


def _architectures(cells: dict[tuple[Any, ...], dict[str, Row]]) -> list[str]:
    seen = {name for cell in cells.values() for name in cell}
    return [name for name in SHOWN if name in seen] + sorted(seen - set(SHOWN))


def ttft_bars(name: str, body: Body, kind: str, demo: str) -> Figure | None:
    """TTFT by architecture with 95% intervals: the paper's Figures 4 and 5 drawn as times."""
    key = TIME[kind]
    cells = dict(list(cells_of(body.get("rows", []), key).items())[:MAX_CELLS])
    if not cells:
        return None
    names = _architectures(cells)
    links = len({place[3] for place in cells}) > 1
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=max(7.2, 0.9 * len(cells) + 2), height=3.8)
        axes = drawing.add_subplot()
        width = 0.84 / len(names)
        for index, architecture in enumerate(names):
            for position, cell in enumerate(cells.values()):
                row = cell.get(architecture)
                if row is None:
                    continue
                low, high = row.get("ttft_ms_low"), row.get("ttft_ms_high")
                error = None
                if low is not None and high is not None:
                    error = [[max(0.0, row[key] - low)], [max(0.0, high - row[key])]]
                axes.bar(
                    position - 0.42 + width * (index + 0.5),
                    row[key],
                    width,
                    yerr=error,
                    capsize=2,
                    color=colour(architecture, index),
                    hatch=HATCH if kind == "projected" else None,
                    label=readable(architecture) if architecture not in axes.get_legend_handles_labels()[1] else None,
                    error_kw={"elinewidth": 0.8},
                )
        _legend_once(axes)
        if kind == "projected":
            axes.set_yscale("log")
        axes.set_xticks(range(len(cells)), [_label(place, links) for place in cells], fontsize=7)
        axes.set_ylabel(f"TTFT, {kind} (ms)")
        caption = (
            "Median over repeats of the slowest rank; lines on top are 95% intervals." if kind == "measured" else ""
        )
        title = "Time To First Token" if kind == "measured" else "Time To First Token, projected"
        caption += " Counterpart of the paper's Figures 4 and 5."
        return finish(drawing, f"ttft_{name}", f"{title}: {name}", caption.strip(), kind, demo)


def _legend_once(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    first = dict(zip(labels[::-1], handles[::-1], strict=True))
    axes.legend([first[label] for label in dict.fromkeys(labels)], list(dict.fromkeys(labels)), fontsize=8, ncols=3)


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
        f"TTFT against ranks: {name}",
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
        f"Speedup against the link: {name}",
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
        f"Projected speedup against the link: {name}",
        [""],
        [name_ for name_ in SHOWN if any(row["architecture"] == name_ for row in rows)],
        lambda _, architecture: sorted(
            (row["link_bandwidth_bytes_per_s"] / 1e9, 100 * row["geomean_speedup"])
            for row in rows
            if row["architecture"] == architecture
        ),
        ("link bandwidth (GB/s per direction)", "geometric mean speedup (%)"),
        "Over the whole grid, everything but the link's bandwidth unchanged. The paper does not vary its link.",
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
        drawing = canvas(width=max(5.4, 3.2 * len(panels)), height=3.2)
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
            if ticks:
                axes.set_xticks(ticks)
            axes.set_title(heading)
            axes.set_xlabel(labels[0])
            if panel == 0:
                axes.set_ylabel(labels[1])
                axes.legend(fontsize=8)
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


def scatter(name: str, body: Body, reference: ReferenceConfig) -> Figure | None:
    """Projected against published milliseconds; filled points were used to fit."""
    rows = [row for row in body.get("rows", []) if row.get("published_ms") is not None]
    if not rows:
        return None
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=5.4, height=4.6)
        axes = drawing.add_subplot()
        ends = [min(row["published_ms"] for row in rows) * 0.8, max(row["published_ms"] for row in rows) * 1.25]
        axes.plot(ends, ends, color=INK, linewidth=0.8)
        axes.fill_between(ends, [0.8 * e for e in ends], [1.2 * e for e in ends], color=INK, alpha=0.08, linewidth=0)
        for architecture in PAPER_ARCHITECTURES:
            for fitted in (True, False):
                chosen = [row for row in rows if row["architecture"] == architecture and bool(row["fitted"]) == fitted]
                if chosen:
                    axes.plot(
                        [row["published_ms"] for row in chosen],
                        [row["projected_ms"] for row in chosen],
                        "o",
                        color=COLOURS[architecture],
                        markerfacecolor=COLOURS[architecture] if fitted else "none",
                        label=f"{architecture}, {'fitted' if fitted else 'held out'}",
                        markersize=5,
                    )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("published TTFT (ms)")
        axes.set_ylabel("projected TTFT (ms)")
        axes.legend(fontsize=8)
        caption = f"Published: {reference.source}. The band is ±20%."
        return finish(
            drawing, f"scatter_{name}", f"Projection against publication: {name}", caption, "projected, quoted"
        )


def published_speedups(reference: ReferenceConfig, projection: Body | None) -> Figure:
    """The paper's own Figures 4 and 5, with our projection of the same rows beside them."""
    projected = {
        (row["size"], row["context"], row["tp_size"]): row["speedup"]
        for row in (projection or {}).get("rows", [])
        if row["architecture"] == "kraken" and row.get("published_ms") is not None
    }
    with matplotlib.rc_context(SETTINGS):
        drawing = canvas(width=8.4, height=3.4)
        tp_sizes = sorted({row.tp_size for row in reference.ttft})
        first = None
        for panel, tp_size in enumerate(tp_sizes):
            axes = drawing.add_subplot(1, len(tp_sizes), panel + 1, sharey=first)
            first = first or axes
            rows = [row for row in reference.ttft if row.tp_size == tp_size]
            for at, row in enumerate(rows):
                axes.bar(at - 0.28, 100 * (row.standard_ms / row.parallel_ms - 1), 0.26, color=COLOURS["parallel"])
                axes.bar(at, 100 * (row.standard_ms / row.kraken_ms - 1), 0.26, color=COLOURS["kraken"])
                value = projected.get((row.size, row.context, row.tp_size))
                if value is not None:
                    axes.bar(at + 0.28, 100 * value, 0.26, color=COLOURS["kraken"], alpha=0.45, hatch=HATCH)
            axes.set_xticks(range(len(rows)), [f"{row.size}\n@{row.context}" for row in rows], fontsize=6.5)
            axes.set_title(f"TP {tp_size}")
            if panel == 0:
                axes.set_ylabel("speedup over standard (%)")
                axes.bar(0, 0, color=COLOURS["parallel"], label="parallel, quoted")
                axes.bar(0, 0, color=COLOURS["kraken"], label="kraken, quoted")
                if projected:
                    axes.bar(0, 0, color=COLOURS["kraken"], alpha=0.45, hatch=HATCH, label="kraken, projected")
                axes.legend(fontsize=8)
        kind = "quoted, projected" if projected else "quoted"
        caption = f"The paper's Figures 4 and 5, drawn from its Tables 6 and 7 ({reference.source})."
        return finish(drawing, "published_speedups", "Published speedups", caption, kind)


def row_timelines(body: Body) -> list[Body]:
    """Timelines that a benchmark keeps with its rows, of one cell: that of the first row that has one."""
    rows = [row for row in body.get("rows", []) if isinstance(row.get("timeline"), list) and row["timeline"]]
    same = ("size", "context", "tp_size", "link")
    return [
        {**{key: row.get(key) for key in (*same, "architecture")}, "spans": row["timeline"]}
        for row in rows
        if all(row.get(key) == rows[0].get(key) for key in same)
    ]
