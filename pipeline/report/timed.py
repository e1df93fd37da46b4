"""A file of times, measured or projected, as tables and figures name and describe it."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Inputs, overrides
from pipeline.report.table import Column, Row, Table, flat
from pipeline.results import BASELINE, ProjectionResult, TtftResult, verdicts
from pipeline.results.headline import HeadlineEntry, busy_words


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
        bands = ((self.result.headline.all, ""), (self.result.headline.named, "named beforehand, "))
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
        """The geometric means in words; of measured rows also which is fastest, and where none beats the baseline."""
        said: dict[str, list[str]] = {}  # what is the same for all of them is said once
        for row in self.means:
            over = f"Over {row['against']}, {row['kind']}, geometric mean of {row['covered']}"
            said.setdefault(over, []).append(f"{row['architecture']} {mean_text(row)}")
        means = [f"{over}: {', '.join(values)}." for over, values in said.items()]
        missing = self.result.headline.missing
        untimed = [f"Links named beforehand that were not timed: {', '.join(missing)}."] if missing else []
        return " ".join([*means, *untimed, *self._fastest()])

    def _fastest(self) -> Iterator[str]:
        found = self.result.verdicts if isinstance(self.result, TtftResult) else []
        for one in found:
            if one.scope != "cell":
                named = " named beforehand" if one.scope == "named" else ""
                busy = f", {words}" if (words := busy_words(one.busy, len(one.cells))) else ""
                yield f"Over {len(one.cells)} cells{named} ({one.kind}{busy}): {verdicts.said(one)}"
        for kind in dict.fromkeys(one.kind for one in found):
            own = [one for one in found if (one.kind, one.scope) == (kind, "cell")]
            lost = [one.cells[0] for one in own if not one.beats_standard]
            where = "; ".join(f"{cell.size}, T={cell.context}, TP {cell.tp_size}, {cell.link}" for cell in lost)
            if lost:
                yield f"No architecture beats {BASELINE} ({kind}) at: {where}."


def covered(entry: HeadlineEntry) -> str:
    """The cells of a geometric mean in words."""

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(getattr(cell, key)) for cell in entry.cells))

    links = [f"link {each('link')}"] if any(cell.link for cell in entry.cells) else []
    crowded = ["ranks exceed cores: shows order, not overlap"] if entry.oversubscribed else []
    busy = [words] if (words := busy_words(entry.busy, len(entry.cells))) else []
    parts = [each("size"), f"{each('context')} tokens", f"batch {each('batch_size')}", f"TP {each('tp_size')}"]
    number = f"{len(entry.cells)} cell{'s' if len(entry.cells) > 1 else ''}"
    return f"{number}: {'; '.join([*parts, *links, *crowded, *busy])}"


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
        "against": BASELINE,
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
        if (row["architecture"], row["against"]) == ("kraken", BASELINE) and (row["kind"] != "quoted" or row is rows[0])
    ]
    return {"what": "Kraken's TTFT speedup over the standard model, geometric mean", "values": values}


def speedups_table(rows: list[Row], demo: str) -> Table | None:
    """`rows` of all_means: every architecture of every file, beside the published one."""
    if len(rows) < 2:
        return None
    columns = [
        Column("source", "Source"),
        Column("architecture", "Architecture"),
        Column("against", "Over"),
        Column("geomean_speedup", "Geometric mean", "", "signed_percent", 1),
        Column("geomean_speedup_low", "95% from", "", "signed_percent", 1),
        Column("geomean_speedup_high", "95% to", "", "signed_percent", 1),
        Column("least_speedup", "Least", "", "signed_percent", 1),
        Column("most_speedup", "Most", "", "signed_percent", 1),
        Column("median_share_hidden", "Hidden, median", "", "percent", 0),
        Column("exposed_low", "Exposed, least", "", "percent", 0),
        Column("exposed_high", "Exposed, most", "", "percent", 0),
        Column("interval_over", "95% over"),
        Column("covered", "Cells"),
    ]
    notes = (
        "As the result files hold them. 95% intervals are over launches, or over the rounds of a single one, in which "
        "how launches differ is not; too few of either have none.",
        "Exposed: the share of the standard model's time that is exposed communication, over the same cells. Named "
        "beforehand: only cells that the benchmark's configuration names (headline_links, headline_contexts).",
    )
    is_demo = any("scale" in row for row in rows)
    heading = "Speedups"
    return Table("speedups", heading, columns, rows, notes=notes, demo=demo if is_demo else "")
