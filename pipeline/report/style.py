"""How figures look: colour-blind safe, the same colour for an architecture everywhere, units on every axis."""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure as Canvas

INK = "#010203"  # a black no data uses: inline SVGs turn it into the page's text colour
# Okabe and Ito's colours that no architecture below holds, then Tol's
PALETTE = ("#009e73", "#cc79a7", "#d55e00", "#882255", "#44aa99", "#332288", "#999933", "#117733", "#aa4499", "#f0e442")
ARCHITECTURES = {"standard": "#8a8a8a", "parallel": "#e69f00", "kraken": "#0072b2", "no_communication": "#56b4e9"}
PARTS = {
    "norm": "#f0e442",
    "gemm": "#0072b2",
    "overlapped_gemm": "#56b4e9",
    "attention": "#009e73",
    "elementwise": "#cc79a7",
    "lm_head": "#e69f00",
    "all_reduce": "#d55e00",
    "other": "#bbbbbb",
}
HATCH = "////"  # marks what was not measured
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "text.hinting": "none",  # widths as in the SVG, so that nothing is cut there
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "axes.titlesize": 9,
    "hatch.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "hatch.color": INK,
    "grid.color": INK,
}


def colours(architectures: Iterable[str]) -> dict[str, str]:
    """A colour for each: fixed ones, then the palette's in the names' order; none twice while it lasts."""
    others = sorted(set(architectures) - set(ARCHITECTURES))
    return {**ARCHITECTURES, **{name: PALETTE[index % len(PALETTE)] for index, name in enumerate(others)}}


@dataclass(frozen=True)
class Figure:
    """A finished figure as bytes, with what it shows in words and the kinds of its rows."""

    name: str
    title: str
    caption: str
    kinds: tuple[str, ...]
    png: bytes
    svg: bytes
    demo: str = ""
    study: str = ""  # the study whose section it stands in

    def as_dict(self) -> dict[str, Any]:
        files = {ending: f"figures/{self.name}.{ending}" for ending in ("png", "svg")}
        words = {"title": self.title, "caption": self.caption, "demo": self.demo, "study": self.study}
        return {**words, "kinds": list(self.kinds), **files}

    def inline_svg(self) -> str:
        """The drawing for an HTML page: black follows the page's text colour, nothing is loaded."""
        text = self.svg.decode("utf-8")
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return text.replace(INK, "currentColor")


def canvas(width: float = 7.2, height: float = 3.6) -> Canvas:
    """An empty drawing area, in inches."""
    return Canvas(figsize=(width, height), dpi=150, layout="constrained")


def finish(
    drawing: Canvas, name: str, title: str, caption: str, kinds: Iterable[str], demo: str = "", study: str = ""
) -> Figure:
    """Render to PNG and SVG; the same drawing gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        drawing.draw_without_rendering()  # lays out once, for both files
        drawing.set_layout_engine("none")
        drawing.savefig(png, format="png", facecolor="white")
        drawing.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Figure(name, title, caption, tuple(dict.fromkeys(kinds)), png.getvalue(), svg.getvalue(), demo, study)


def readable(name: str) -> str:
    return name.replace("_", " ")


def axis(what: str, kinds: Iterable[str]) -> str:
    """An axis' label, which says where its numbers come from."""
    return "\n".join([what, *dict.fromkeys(kinds)]).replace(", ", ",\n")
