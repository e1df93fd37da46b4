"""A table of the report: what its columns mean, and rows that each say where they come from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel

from pipeline.results import KINDS

Row = dict[str, Any]
MODELLED = "measured compute, modelled communication"
Format = Literal["text", "integer", "number", "percent", "signed", "signed_percent", "short", "yes_no"]


def flat(result: BaseModel) -> Row:
    """A typed row as a table's, without its nested parts, which the figures show."""
    return {key: value for key, value in result if not isinstance(value, BaseModel | dict | list)}


def is_measured(row: Row) -> bool:
    """Whether anything of the row was timed or scored by us."""
    return row["kind"] in ("measured", MODELLED)


def badge(kind: str) -> str:
    """The class that colours a kind on the page."""
    return "modelled" if kind == MODELLED else kind


@dataclass(frozen=True)
class Column:
    """One column: the row's key, its heading, its unit and how its values are written."""

    key: str
    label: str
    unit: str = ""
    format: Format = "text"
    digits: int = 2
    error_key: str | None = None  # key of the value's standard error, written behind ±
    interval: bool = False  # the 95% interval, keys <key>_low and <key>_high, is written in brackets
    fold: bool = False  # said once below the table where all rows agree

    def text(self, row: Row) -> str:
        """The cell as words; an en dash where the row has no value."""
        value = row.get(self.key)
        if value is None:
            return "–"
        digits = min(self.digits, _decimals(value)) if row.get("kind") == "quoted" else self.digits
        written = replace(self, digits=digits)._written(value)
        error = row.get(self.error_key) if self.error_key else None
        if error is not None:
            return f"{written} ± {self._written(error, sign=False)}"
        low, high = (row.get(key) for key in self.interval_keys) if self.interval else (None, None)
        return written if low is None or high is None else f"{written} ({self._written(low)} to {self._written(high)})"

    @property
    def interval_keys(self) -> tuple[str, str]:
        return f"{self.key}_low", f"{self.key}_high"

    def _written(self, value: Any, sign: bool = True) -> str:
        if self.format == "yes_no":
            return "yes" if value else "no"
        if self.format == "integer":
            return f"{value:,.0f}"
        if self.format == "number":
            return f"{value:,.{self.digits}f}"
        if self.format == "signed":
            return f"{value:{'+' if sign else ''},.{self.digits}f}"
        if self.format == "short":
            return f"{value:g}"
        if self.format == "percent":
            return f"{100 * value:.{self.digits}f}%"
        if self.format == "signed_percent":
            return f"{100 * value:{'+' if sign else ''}.{self.digits}f}%"
        return str(value)

    @property
    def is_numeric(self) -> bool:
        return self.format not in ("text", "yes_no")


def _decimals(value: Any) -> int:
    """Decimals that a published number was given with: none are added."""
    return len(repr(value).partition(".")[2]) if isinstance(value, float) else 0


@dataclass(frozen=True)
class Table:
    """Rows under columns. Every row has a `kind`; `verdict` says in words what they show."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: list[Row]
    verdict: str = ""
    notes: Sequence[str] = field(default_factory=tuple)
    demo: str = ""  # the sentence above a table of a demo
    study: str = ""  # the study whose section it stands in

    def __post_init__(self) -> None:
        without = [row for row in self.rows if row.get("kind") not in KINDS]
        if without:
            raise ValueError(f"table {self.name}: rows without a kind: {without[:2]}")

    @property
    def has_measured(self) -> bool:
        return any(is_measured(row) for row in self.rows)

    @property
    def used_columns(self) -> list[Column]:
        """Columns that at least one row fills."""
        return [column for column in self.columns if any(row.get(column.key) is not None for row in self.rows)]

    @property
    def folded_columns(self) -> list[Column]:
        """Columns that need no room: the same in every row."""
        foldable = [column for column in self.used_columns if column.fold]
        return [column for column in foldable if len({column.text(row) for row in self.rows}) == 1]

    @property
    def shown_columns(self) -> list[Column]:
        folded = self.folded_columns
        return [column for column in self.used_columns if column not in folded]

    @property
    def folded_sentence(self) -> str:
        """What the folded columns say."""
        parts = [f"{column.label.lower()} {column.text(self.rows[0])}" for column in self.folded_columns]
        return f"The same in all rows: {', '.join(parts)}." if parts else ""

    def as_dict(self) -> dict[str, Any]:
        """The table for report.json: raw values, with units beside the keys' headings."""
        return {
            "title": self.title,
            "demo": self.demo,
            "study": self.study,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "columns": [asdict(column) for column in self.used_columns],
            "rows": self.rows,
        }


def markdown(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of a page in docs."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
