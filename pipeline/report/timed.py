"""A file of times, measured or projected, as tables and figures name and describe it."""

from dataclasses import dataclass

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Inputs, overrides
from pipeline.report.table import Column, Row, Table, flat
from pipeline.results import BASELINE, ProjectionResult, TtftResult
from pipeline.results.ttft import HeadlineEntry


@dataclass(frozen=True)
class Timed:
    """One benchmark or projection, by its file's name without the first word."""

    inputs: Inputs
    name: str
    result: TtftResult | ProjectionResult

    @property
    def is_projected(self) -> bool:
        return isinstance(self.result, ProjectionResult)

    @property
    def key(self) -> str:
        """What its figures' names end in."""
        return f"projected_{self.name}" if self.is_projected else self.name

    @property
    def title(self) -> str:
        """A variant is called by its file's name, so that it is never taken for what it varies."""
        if overrides(self.name):
            return f"{self.name}, settings overridden"
        if isinstance(self.result, TtftResult):
            return self.name
        return f"{self.result.hardware}, {self.result.benchmark}"

    @property
    def demo(self) -> str:
        return "" if self.is_projected else self.inputs.demo

    def is_papers(self, reference: ReferenceConfig) -> bool:
        """Whether it is the projection of the paper's grid on the paper's machine, nothing changed."""
        if isinstance(self.result, TtftResult) or overrides(self.name):
            return False
        named = (self.result.hardware, self.result.benchmark)
        is_compared = any(row.published_ms is not None for row in self.result.rows)
        return named == (reference.ttft_hardware, reference.ttft_benchmark) and is_compared

    @property
    def means(self) -> list[Row]:
        """The file's geometric means as it holds them, with the cells they cover in words."""
        source = self.title if self.is_projected else f"{self.title}, {self.inputs.scale} scale"
        bands = ((self.result.headline.all, ""), (self.result.headline.exposed_band, "25–40% exposed, "))
        return [
            {
                **flat(entry),
                **({} if self.is_projected else {"scale": self.inputs.scale}),
                "source": source,
                "band": band,
                "covered": band + covered(entry),
            }
            for entries, band in bands
            for entry in entries
            if entry.architecture != BASELINE
        ]

    @property
    def verdict(self) -> str:
        """The geometric means over all cells in words."""
        said: dict[str, list[str]] = {}  # what is the same for all of them is said once
        for row in self.means:
            if not row["band"]:
                over = f"Over {BASELINE}, {row['kind']}, geometric mean of {row['covered']}"
                said.setdefault(over, []).append(f"{row['architecture']} {mean_text(row)}")
        return " ".join(f"{over}: {', '.join(means)}." for over, means in said.items())


def covered(entry: HeadlineEntry) -> str:
    """The cells of a geometric mean in words."""

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(cell, key)) for cell in entry.cells))

    links = [f"link {each('link')}"] if any(cell.link for cell in entry.cells) else []
    crowded = ["ranks exceed cores: shows order, not overlap"] if entry.oversubscribed else []
    parts = [each("size"), f"{each('context')} tokens", f"batch {each('batch_size')}", f"TP {each('tp_size')}"]
    number = f"{len(entry.cells)} cell{'s' if len(entry.cells) > 1 else ''}"
    return f"{number}: {'; '.join([*parts, *links, *crowded])}"


def mean_text(row: Row) -> str:
    """A geometric mean with its 95% interval where it has one."""
    low, high = row.get("geomean_speedup_low"), row.get("geomean_speedup_high")
    interval = "" if low is None or high is None else f" ({low:+.1%} to {high:+.1%})"
    return f"{row['geomean_speedup']:+.1%}{interval}"


def all_means(timed: list[Timed], reference: ReferenceConfig) -> list[Row]:
    """The published geometric mean, and those of every file."""
    published = {
        "kind": "quoted",
        "source": "published",
        "architecture": "kraken",
        "geomean_speedup": reference.ttft_headline_geomean,
        "band": "",
        "covered": f"{reference.source}, {len(reference.ttft)} rows",
    }
    return [published, *(row for one in timed for row in one.means)]


def headline(rows: list[Row]) -> Row:
    """Kraken's geometric means among `rows` of all_means; of the quoted ones only the publication's own."""
    values = [
        {
            "label": f"projected, {row['source']}" if row["kind"] == "projected" else row["source"],
            "value": row["geomean_speedup"],
            "low": row.get("geomean_speedup_low"),
            "high": row.get("geomean_speedup_high"),
            "text": f"{row['geomean_speedup']:+.1%}",
            "kind": row["kind"],
            "where": row["covered"],
        }
        for row in rows
        if row["architecture"] == "kraken" and not row["band"] and (row["kind"] != "quoted" or row is rows[0])
    ]
    return {"what": "Kraken's TTFT speedup over the standard model, geometric mean", "values": values}


def speedups_table(rows: list[Row], demo: str) -> Table | None:
    """`rows` of all_means: every architecture of every file, beside the published one."""
    if len(rows) < 2:
        return None
    columns = [
        Column("source", "Source"),
        Column("architecture", "Architecture"),
        Column("geomean_speedup", "Geometric mean", "", "signed_percent", 1),
        Column("geomean_speedup_low", "95% from", "", "signed_percent", 1),
        Column("geomean_speedup_high", "95% to", "", "signed_percent", 1),
        Column("least_speedup", "Least", "", "signed_percent", 1),
        Column("most_speedup", "Most", "", "signed_percent", 1),
        Column("median_share_hidden", "Hidden, median", "", "percent", 0),
        Column("covered", "Over"),
    ]
    notes = (
        "As the result files hold them. 95% intervals: rounds resampled in every cell; with one launch, as in all of "
        "these unless their protocol says more, how launches differ is not in them; too few rounds have none.",
        "25–40% exposed: only cells in which the standard model spends that share of its time in communication.",
    )
    is_demo = any("scale" in row for row in rows)
    heading = "Speedup over the standard model"
    return Table("speedups", heading, columns, rows, notes=notes, demo=demo if is_demo else "")
