"""How numbers of Time To First Token are written in tables of docs."""

from pipeline.results.ttft import TtftRow


def speedup(row: TtftRow | None) -> str:
    """With its 95% interval; an en dash where there is none."""
    if row is None or row.speedup is None:
        return "–"
    return f"{row.speedup:+.0%}{ends(row.speedup_low, row.speedup_high, '+.0%')}"


def ends(low: float | None, high: float | None, form: str = ".2f") -> str:
    """An interval in brackets behind its value; nothing where there is none."""
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def number(value: float | None, form: str) -> str:
    """A value, or an en dash."""
    return "–" if value is None else f"{value:{form}}"
