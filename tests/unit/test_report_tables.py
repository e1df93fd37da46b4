"""Tables and figures of the report: what is compared with what, and how it is called, drawn and written."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.benchmark.grid import Cell, expand
from pipeline.benchmark.idle import Usage
from pipeline.benchmark.rows import decode_rows
from pipeline.benchmark.ttft import Decoded, Resources
from pipeline.compose import compose, model_config
from pipeline.experiment.places import place
from pipeline.projection.grid import project
from pipeline.projection.hardware import Hardware
from pipeline.report import style
from pipeline.report.build import make_figures, make_tables
from pipeline.report.inputs import ordered
from pipeline.report.table import Column, Table
from pipeline.results import BASELINE, BOUND, TtftResult, write
from pipeline.results.cell import PARTS
from pipeline.results.headline import Named, headline
from pipeline.results.tasks import against_published
from pipeline.results.verdicts import verdicts
from tests.unit import result_files
from tests.unit.report_inputs import PAPERS, put, read
from tests.unit.result_files import settings


def tables(root: Path, scale: str = "demo") -> dict[str, Table]:
    """Tables by name, without the page and the figures, which take seconds."""
    return {table.name: table for table in make_tables(read(root, scale), compose([]).reference)}


def renamed(result: Any, **names: str) -> Any:
    """A result whose architectures are called otherwise, its headline made again as its writer makes it."""

    def named(rows: list[Any]) -> list[Any]:
        return [row.model_copy(update={"architecture": names.get(row.architecture, row.architecture)}) for row in rows]

    lists = ("rows", "timelines", *(["breakdown"] if isinstance(result, TtftResult) else ["link_sweep"]))
    changed = result.model_copy(update={name: named(getattr(result, name)) for name in lists})
    again = {"verdicts": verdicts(changed.rows)} if isinstance(result, TtftResult) else {}
    return changed.model_copy(update={"headline": headline(changed.rows), **again})


def test_an_overridden_projection_is_never_the_papers(tmp_path):
    put(tmp_path, PAPERS, result_files.projection(tmp_path))
    config = settings(tmp_path, "benchmark=ttft_paper", "hardware.link_bandwidth=3.2e10")
    (path,) = place("projection", config)
    assert "~" in path.name
    few = config.benchmark.model_copy(update={"shapes": config.benchmark.shapes[:1], "contexts": [128]})
    slower = project(few, Hardware.from_config(config.hardware), model_config)
    write(path, slower, result_files.PROVENANCE)
    inputs = read(tmp_path)
    found = {table.name: table for table in make_tables(inputs, config.reference)}
    name = path.stem.removeprefix("projection-")
    assert found[f"projection_{name}"].title == f"Projection: {name}, settings overridden"
    projected = [row for row in found["table6"].rows if row["kind"] == "projected"]
    papers = {row.projected_ms for row in inputs.projections["a100_40gb_nvswitch-ttft_paper"].rows}
    assert len(projected) == 1 and projected[0]["kraken_ms"] in papers
    sources = {
        row["geomean_speedup"]: row["source"] for row in found["speedups"].rows if row["architecture"] == "kraken"
    }
    assert sources[next(one.geomean_speedup for one in slower.headline.all if one.architecture == "kraken")] == (
        f"{name}, settings overridden"
    )
    (tmp_path / "results" / "demo" / PAPERS).unlink()
    put(tmp_path, PAPERS.replace("ttft_paper", "ttft_paper~0a1b2c"), result_files.projection(tmp_path))
    assert "table6" not in tables(tmp_path)
    # nor is one under the plain name that nothing published was held against
    put(tmp_path, PAPERS, slower)
    assert "table6" not in tables(tmp_path)


def test_a_report_says_which_architecture_is_fastest_and_where_none_beats_standard(tmp_path):
    """Ladder gains over one link and loses over the other; the named cells are those of the link where it loses."""

    def of(link: str) -> result_files.Milliseconds:
        return lambda name, mode: 20.0 if name == BASELINE else 10.0 if (name, link) == ("ladder", "300mbit") else 30.0

    parts = [
        result_files.ttft(tmp_path, links=(link,), crowded=(), launches=3, of=of(link), contexts=[128], tp_sizes=[2])
        for link in ("300mbit", "loopback")
    ]
    rows = [row for part in parts for row in part.rows]
    named = Named(links=["loopback", "2gbit"])
    changed = {"rows": rows, "headline": headline(rows, named), "verdicts": verdicts(rows, named)}
    put(tmp_path, "ttft-ttft_demo.json", parts[0].model_copy(update=changed))
    said = tables(tmp_path)["ttft_ttft_demo"].verdict
    assert "Over 2 cells (measured): ladder is fastest" in said
    assert "No architecture beats standard (measured) at: demo, T=128, TP 2, loopback." in said
    assert "geometric mean of named beforehand, 1 cell: demo; 128 tokens; batch 1; TP 2; link loopback" in said
    assert "Over standard_split, measured" in said
    assert "Links named beforehand that were not timed: 2gbit." in said and "busy" not in said


def test_a_report_says_where_the_machine_was_busy(tmp_path):
    result = result_files.ttft(
        tmp_path, links=("300mbit", "loopback"), crowded=(), launches=3, contexts=[128], tp_sizes=[2]
    )
    rows = [row.model_copy(update={"busy": row.link == "loopback"}) for row in result.rows]
    models = expand(settings(tmp_path, "benchmark=ttft_demo").benchmark, model_config)[2][0]
    shares = Resources("cpu", threads=1, cores=[], oversubscribed=False)
    steps = dict.fromkeys(models.by_architecture, [[[1.0, 2.0]] * 3] * 3)
    benchmark = settings(tmp_path, "benchmark=ttft_demo").benchmark
    decoded = decode_rows(Decoded(models, Cell(128, 1), "loopback", shares, steps, Usage(0.3, 0.1)), benchmark)
    changed = {"rows": rows, "headline": headline(rows), "verdicts": verdicts(rows), "decode_rows": decoded}
    put(tmp_path, "ttft-ttft_demo.json", result.model_copy(update=changed))
    found = tables(tmp_path)
    said = found["ttft_ttft_demo"].verdict
    assert "link 300mbit, loopback; machine busy in 1 of 2 cells" in said
    assert "Over 2 cells (measured, machine busy in 1 of 2 cells): " in said
    assert [row["busy"] for row in found["fastest_ttft_demo"].rows] == [False, True]
    assert "Machine busy" in [column.label for column in found["fastest_ttft_demo"].shown_columns]
    assert "machine busy yes" in found["decode_ttft_demo"].folded_sentence


def test_an_architecture_unknown_here_is_drawn_and_listed_everywhere(tmp_path):
    names = {"ladder": "brand_new"}
    put(tmp_path, "ttft-ttft_demo.json", renamed(result_files.ttft(tmp_path), **names))
    put(tmp_path, PAPERS, renamed(result_files.projection(tmp_path), **names))
    named = {"architecture": "brand_new", "model": "mine"}
    mine = result_files.perplexity(tmp_path, "demo_kraken_4way").model_copy(update=named)
    put(tmp_path, "mine/perplexity.json", mine)
    inputs, reference = read(tmp_path), compose([]).reference
    found = make_tables(inputs, reference)
    for table in found:
        assert any(
            "brand_new_ms" in row or row.get("architecture") == "brand_new" or "brand_new" in row.get("beats", "")
            for row in table.rows
        ), table.name
    assert "brand_new +" in next(table.verdict for table in found if table.name == "ttft_ttft_demo")
    drawn = {figure.name: figure.svg.decode() for figure in make_figures(inputs, reference, found)}
    shade = inputs.colours["brand_new"]
    assert {"speedup_link_ttft_demo", "link_sweep_a100_40gb_nvswitch-ttft_paper", "perplexity"} < set(drawn)
    for name, svg in drawn.items():
        if name in ("published_speedups", "scatter_a100_40gb_nvswitch-ttft_paper"):  # of what the paper published
            continue
        assert "brand new" in svg or name == "perplexity", name
        assert shade in svg or name.startswith(("breakdown", "timeline")), name  # those colour kinds of work


def test_colours_are_told_apart_and_do_not_depend_on_order():
    names = [f"new_{index}" for index in range(10)]
    found = style.colours([*names, "kraken"])
    assert len(set(found.values())) == len(found) == 14
    assert style.colours([*reversed(names), *names]) == found
    assert {BASELINE, BOUND} < set(found)
    assert set(PARTS) == set(style.PARTS)


def test_order_of_display():
    assert ordered([BOUND, "zebra", "kraken", "apple", "standard", "zebra"]) == [
        *("standard", "kraken", "zebra", "apple"),
        BOUND,
    ]


def test_a_real_difference_is_called_one(tmp_path):
    for model, loss in (("demo_standard", 4.1), ("demo_kraken_4way", 3.5)):
        put(tmp_path, f"{model}/perplexity.json", result_files.perplexity(tmp_path, model, loss_nats=loss))
    verdict = tables(tmp_path)["perplexity"].verdict
    assert "demo_kraken_4way is better than demo_standard (-0.6000 ± 0.0283 nats)" in verdict


def test_only_models_scored_alike_are_compared(tmp_path):
    put(tmp_path, "demo_standard/perplexity.json", result_files.perplexity(tmp_path, "demo_standard"))
    kraken = result_files.perplexity(tmp_path, "demo_kraken_4way")
    put(tmp_path, "demo_kraken_4way/perplexity~0a1b2c.json", kraken)
    put(tmp_path, "demo_kraken_4way/perplexity.json", kraken.model_copy(update={"data": "openwebtext"}))
    rows = {row["model"]: row for row in tables(tmp_path)["perplexity"].rows if row["kind"] == "measured"}
    assert set(rows) == {"demo_standard", "demo_kraken_4way", "demo_kraken_4way~0a1b2c"}
    assert all(row["baseline"] is None for row in rows.values())


def test_what_is_the_same_in_all_rows_is_said_once():
    columns = [Column("a", "A", fold=True), Column("b", "B", fold=True), Column("c", "C")]
    rows = [{"kind": "measured", "a": 1, "b": value, "c": 3} for value in (1, 2)]
    table = Table("t", "T", columns, rows)
    assert [column.key for column in table.shown_columns] == ["b", "c"]
    assert table.folded_sentence == "The same in all rows: a 1."


def test_whole_validation_sets_are_compared(tmp_path):
    result = result_files.superglue(tmp_path, "demo_kraken_4way", data="full")
    published = {"boolq": 50.0, "mean": 20.0}
    compared = result.model_copy(update={"published": against_published(result, published, "Kraken 124M 4-way")})
    put(tmp_path, "demo_kraken_4way/superglue_3shot.json", compared)
    table = tables(tmp_path)["superglue_3shot"]
    assert "differs from the paper's 20.00" in table.verdict and "Not comparable" not in table.verdict
    assert table.rows[0]["published_mean"] == 20.0


def test_results_without_a_baseline_are_compared_with_the_first_model(tmp_path):
    for model in ("demo_kraken_4way", "demo_parallel", "demo_standard"):  # the baseline scored last
        put(tmp_path, f"{model}/superglue_3shot.json", result_files.superglue(tmp_path, model))
    rows = tables(tmp_path)["superglue_3shot_differences"].rows
    assert {(row["model"], row["baseline"]) for row in rows} == {
        ("demo_kraken_4way", "demo_standard"),
        ("demo_parallel", "demo_standard"),
    }


def test_a_row_must_say_where_it_comes_from():
    with pytest.raises(ValueError, match="without a kind"):
        Table("t", "T", [Column("a", "A")], [{"a": 1}])


def test_cells_are_written_with_errors_and_no_added_digits():
    column = Column("x", "X", "%", "number", 3, "e")
    assert column.text({"kind": "measured", "x": 1.23456, "e": 0.1}) == "1.235 ± 0.100"
    assert column.text({"kind": "quoted", "x": 60.0}) == "60.0"
    assert column.text({"kind": "measured"}) == "–"
    assert Column("x", "X", "", "signed_percent", 1).text({"kind": "measured", "x": -0.0321}) == "-3.2%"
