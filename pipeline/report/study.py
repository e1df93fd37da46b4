"""One study's result files side by side: its arms in order, how they are drawn, what is not there yet."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.files import VARIANT, plain_name
from pipeline.report.style import INK, readable
from pipeline.results.file import Result
from pipeline.results.quality import Estimate, QualityCell, QualityResult
from pipeline.results.search import SearchResult
from pipeline.results.trade import TradeResult

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":", "-.")
PARTS: dict[str, type[Result]] = {"search": SearchResult, "quality": QualityResult, "trade": TradeResult}
LACKING = {
    "search": "the recipes' search",
    "quality": "losses over seeds, laws and claims",
    "trade": "loss against TTFT (where the study times its arms)",
}


@dataclass
class Study:
    """The files of one folder. Any of them may be missing: an interrupted study has its search alone."""

    name: str  # the folder's
    search: SearchResult | None = None
    quality: QualityResult | None = None
    trades: dict[str, TradeResult] = field(default_factory=dict)  # by file name: trade, trade~0a1b2c, trade-rate

    @property
    def trade(self) -> TradeResult | None:
        """The study's own: over loopback, no setting overridden."""
        return self.trades.get("trade")

    @property
    def title(self) -> str:
        """A variant is called by its folder's name, so that it is never taken for what it varies."""
        plain = plain_name(self.name)
        named = self.name if self.name != plain else "" if plain == "same_tokens" else readable(plain)
        overridden = ", settings overridden" if self.name != plain else ""
        return "Quality on the same tokens" + (f": {named}{overridden}" if named else "")

    @cached_property
    def arms(self) -> list[str]:
        """Every arm that a file names, in the study's order."""
        found: list[str] = [model.arm for model in self.quality.models] if self.quality else []
        found += [trial.arm for trial in self.search.trials] if self.search else []
        found += [row.arm for trade in self.trades.values() for row in trade.rows]
        return list(dict.fromkeys(found))

    @property
    def baseline(self) -> str:
        """The arm that the others are held against: the first, where no file says so."""
        return self.quality.baseline if self.quality else self.arms[0]

    @cached_property
    def architectures(self) -> dict[str, str]:
        """Of every arm whose architecture a file says."""
        return {model.arm: model.architecture for model in self.quality.models} if self.quality else {}

    def drawn(self, arm: str, colours: dict[str, str]) -> dict[str, Any]:
        """Its architecture's colour, a marker that no other arm has, a line that no other of its colour has."""
        own = self.architectures.get(arm)
        alike = [name for name in self.arms if self.architectures.get(name) == own]
        return {
            "color": colours[own] if own else INK,
            "marker": MARKERS[self.arms.index(arm) % len(MARKERS)],
            "linestyle": LINES[alike.index(arm) % len(LINES)],
        }

    def lacking(self, scale: str) -> Iterator[dict[str, str]]:
        """What is not there, and the command that makes it."""
        for part, kind in PARTS.items():
            if getattr(self, part) is None:
                command = kind.command.replace("NAME", plain_name(self.name))
                yield {
                    "what": f"{self.name}: {LACKING[part]}",
                    "command": f"{command} scale={scale}",
                    "study": self.name,
                }


def trade_words(stem: str) -> str:
    """What a title adds for a trade file that is not the study's own; empty for trade.json."""
    link = stem.partition("-")[2]
    words = f", link {readable(plain_name(link))}" if link else ""
    return words + (f", settings overridden ({stem})" if VARIANT in stem else "")


def unknown_model(quality: QualityResult) -> str | None:
    """Which arm and size its runs and cells name that `models` says nothing of, in words; None where there is none."""
    known = {(model.arm, model.size) for model in quality.models}
    named = [(cell.arm, cell.size) for cell in quality.cells] + [(run.arm, run.size) for run in quality.runs]
    lost = next((pair for pair in named if pair not in known), None)
    return f"names arm {lost[0]} at size {lost[1]}, which its models lack" if lost else None


def cells(quality: QualityResult) -> list[QualityCell]:
    """The central cell's first, then its size's other token counts, then other sizes, smallest first."""
    sizes = list(dict.fromkeys(model.size for model in quality.models))
    arms = list(dict.fromkeys(model.arm for model in quality.models))

    def place(cell: QualityCell) -> tuple[Any, ...]:
        off_center = (cell.size != quality.central_size, cell.tokens != quality.central_tokens)
        size = sizes.index(cell.size) if cell.size in sizes else len(sizes)
        return any(off_center), off_center[0], size, cell.tokens, arms.index(cell.arm) if cell.arm in arms else 0

    return sorted(quality.cells, key=place)


def count(number: float) -> str:
    """A number of tokens, parameters or FLOPs in three digits: 393k, 2.36M, 147B; beyond 10^15 as a power."""
    for size, letter in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{letter}" if letter else f"{number:.2e}".replace("e+", "e")
    return f"{number:.3g}"


def ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """An estimate as a table's cells: itself, and the ends of its interval."""
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def bars(estimate: Estimate) -> list[list[float]]:
    """An interval as matplotlib's error bars, (2, 1): how far it reaches down and up."""
    reach = (estimate.low, estimate.high)
    if reach[0] is None or reach[1] is None:
        return [[0.0], [0.0]]
    return [[max(0.0, estimate.value - reach[0])], [max(0.0, reach[1] - estimate.value)]]
