"""How figures look: colour-blind safe, the same colour for an architecture everywhere, units on every axis."""

import base64
import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure as Canvas

INK = "#010203"  # a black no data uses: inline SVGs turn it into the page's text colour
COLOURS = {  # Okabe and Ito
    "standard": "#8a8a8a",
    "parallel": "#e69f00",
    "kraken": "#0072b2",
    "ladder": "#009e73",
    "desync": "#cc79a7",
    "no_communication": "#56b4e9",
}
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
OTHER = ("#d55e00", "#f0e442", "#882255", "#44aa99", "#aa4499", "#117733")
HATCH = "////"  # marks what was not measured
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
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


@dataclass(frozen=True)
class Figure:
    """A finished figure as bytes, with what it shows in words."""

    name: str
    title: str
    caption: str
    kind: str  # measured, projected, quoted, or several of them
    png: bytes
    svg: bytes
    demo: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "caption": self.caption,
            "kind": self.kind,
            "demo": self.demo,
            "png": f"figures/{self.name}.png",
            "svg": f"figures/{self.name}.svg",
        }

    def inline_svg(self) -> str:
        """The drawing for an HTML page: black follows the page's text colour, nothing is loaded."""
        text = self.svg.decode("utf-8")
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return text.replace(INK, "currentColor")

    def png_data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def canvas(width: float = 7.2, height: float = 3.6) -> Canvas:
    """An empty drawing area, in inches."""
    return Canvas(figsize=(width, height), layout="constrained")


def finish(drawing: Canvas, name: str, title: str, caption: str, kind: str, demo: str = "") -> Figure:
    """Render to PNG and SVG; the same drawing gives the same bytes."""
    png, svg = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": name}):
        drawing.draw_without_rendering()  # lays out once, for both files
        drawing.set_layout_engine("none")
        drawing.savefig(png, format="png", dpi=150, facecolor="white")
        drawing.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return Figure(name, title, caption, kind, png.getvalue(), svg.getvalue(), demo)


def colour(architecture: str | None, index: int = 0) -> str:
    return COLOURS.get(architecture or "", OTHER[index % len(OTHER)])


def readable(name: str) -> str:
    return name.replace("_", " ")
