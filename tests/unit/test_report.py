"""The report from result files written by hand."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline import files
from pipeline.compose import compose
from pipeline.errors import PipelineError
from pipeline.report import summary
from pipeline.report.build import DEMO, DEMO_LABEL, make_tables, without_nan, write_report
from pipeline.report.inputs import read_inputs
from pipeline.report.table import KINDS, Column, Table
from tests.unit import result_files


def config(root: Path, *overrides: str):
    folders = [f"paths.{name}={root / name}" for name in ("results", "engines", "report")]
    return compose([*folders, "tracking=none", *overrides])


def tables(root: Path, scale: str = "demo"):
    """Tables by name, without the page and the figures, which take seconds."""
    inputs = read_inputs(root / "results", root / "engines", scale, [])
    return {table.name: table for table in make_tables(inputs, compose([]).reference)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole demo run's report: (folder, body of report.json)."""
    root = tmp_path_factory.mktemp("run")
    result_files.write_all(root)
    write_report(config(root), "0123456789ab")
    return root / "report", files.read_json(root / "report" / "report.json")


def test_report_json_is_whole(written):
    _, body = written
    assert body["scale"] == "demo"
    expected = {"models", "training", "perplexity", "superglue_3shot", "superglue_3shot_differences", "engines"}
    expected |= {"ttft_ttft_demo", "table6"}
    assert set(body["tables"]) == expected
    for table in body["tables"].values():
        assert table["rows"]
        assert all(row["kind"] in KINDS for row in table["rows"])
    assert {"training_curves", "perplexity", "superglue_3shot", "ttft_ttft_demo", "published_speedups"} <= set(
        body["figures"]
    )
    assert {"breakdown_ttft_demo", "timeline_ttft_demo", "speedup_link_ttft_demo", "ttft_tp_ttft_demo"} <= set(
        body["figures"]
    )
    assert body["provenance"]["config_fingerprint"] == "0123456789ab"
    assert len(body["sources"]) == 3 * 4 + 1


def test_a_demo_is_labelled(written):
    folder, body = written
    assert body["demo"] == DEMO
    for table in body["tables"].values():
        if any(row["kind"] != "quoted" for row in table["rows"]):
            assert table["demo"] == DEMO_LABEL
        measured = [row for row in table["rows"] if row["kind"] == "measured"]
        assert all(row["scale"] == "demo" for row in measured)
    page = (folder / "index.html").read_text()
    sections = re.findall(r'<section id="table-.*?</section>', page, flags=re.DOTALL)
    assert len(sections) == len(body["tables"])
    assert all('class="demo"' in section for section in sections)


def test_no_label_at_another_scale(tmp_path):
    result_files.write_all(tmp_path, "paper")
    body = write_report(config(tmp_path, "scale=paper", "model=kraken_124m_4way"), "f")
    assert body["demo"] == ""
    assert all(table["demo"] == "" for table in body["tables"].values())
    assert 'class="demo"' not in (tmp_path / "report" / "index.html").read_text()


def test_quoted_rows_are_the_papers(written):
    _, body = written
    quoted = [row for row in body["tables"]["superglue_3shot"]["rows"] if row["kind"] == "quoted"]
    assert len(quoted) == 9
    assert next(row for row in quoted if row["model"] == "Kraken 124M 4-way")["boolq"] == 59.05
    table6 = [row for row in body["tables"]["table6"]["rows"] if row["kind"] == "quoted"]
    assert len(table6) == 10
    assert table6[0] | {"standard_ms": 3.7, "parallel_ms": 3.3, "kraken_ms": 3.3} == table6[0]
    assert not any(
        "loss_nats" in row and row["model"].startswith("Kraken") for row in body["tables"]["perplexity"]["rows"]
    )


def test_verdicts_say_what_the_numbers_do(written):
    _, body = written
    perplexity = body["tables"]["perplexity"]["verdict"]
    assert "demo_kraken_4way cannot be told apart from demo_standard (-0.0500 ± 0.0283 nats)" in perplexity
    assert "3 of 3 models end at least 1 nat below a unigram model" in body["tables"]["training"]["verdict"]
    assert "Not comparable with the paper's rows" in body["tables"]["superglue_3shot"]["verdict"]
    assert "neither confirm nor refute" in body["tables"]["table6"]["verdict"]


def test_a_real_difference_is_called_one(tmp_path):
    result_files.write_all(tmp_path)
    path = tmp_path / "results" / "demo" / "demo_kraken_4way" / "perplexity.json"
    files.write_json(path, {**files.read_json(path), "loss_nats": 3.5, "perplexity": math.exp(3.5)})
    verdict = tables(tmp_path)["perplexity"].verdict
    assert "demo_kraken_4way is better than demo_standard (-0.6000 ± 0.0283 nats)" in verdict


def test_projections_stand_beside_published_and_measured_times(tmp_path):
    result_files.write_all(tmp_path)
    row = {"kind": "projected", "size": "1.3B", "context": 128, "tp_size": 4, "batch_size": 1, "published_ms": 3.7}
    rows = [row | {"architecture": "standard", "projected_ms": 4.0, "speedup": 0.0, "fitted": True}]
    rows += [row | {"architecture": "kraken", "projected_ms": 3.2, "speedup": 0.25, "fitted": False}]
    body = {"hardware": "a100_40gb_nvswitch", "benchmark": "ttft_paper", "rows": rows, "errors": {}, "headline": None}
    name = "projection-a100_40gb_nvswitch-ttft_paper"
    files.write_json(tmp_path / "results" / "demo" / f"{name}.json", body)
    found = tables(tmp_path)
    table6 = found["table6"].rows
    assert [row["kind"] for row in table6[:2]] == ["quoted", "projected"]
    assert table6[1]["kraken_ms"] == 3.2
    assert table6[1]["kraken_speedup"] == pytest.approx(0.25)
    assert {row["size"] for row in table6 if row["kind"] == "measured"} == {"demo"}
    assert all(row["oversubscribed"] for row in table6 if row["kind"] == "measured")
    assert [row["fitted"] for row in found[f"projection_{name.removeprefix('projection-')}"].rows] == [True, False]


def test_what_is_the_same_in_all_rows_is_said_once():
    columns = [Column("a", "A", fold=True), Column("b", "B", fold=True), Column("c", "C")]
    rows = [{"kind": "measured", "a": 1, "b": value, "c": 3} for value in (1, 2)]
    table = Table("t", "T", columns, rows)
    assert [column.key for column in table.shown_columns] == ["b", "c"]
    assert table.folded_sentence == "The same in all rows: a 1."


def test_whole_validation_sets_are_compared(tmp_path):
    path = tmp_path / "results" / "paper" / "kraken_124m_4way" / "superglue_3shot.json"
    files.write_json(path, {**result_files.superglue("demo_standard", "full"), "model": "kraken_124m_4way"})
    verdict = tables(tmp_path, "paper")["superglue_3shot"].verdict
    assert "kraken_124m_4way: mean 45.00 ± 1.30 differs from the paper's 54.85 (7.6 standard errors)" in verdict
    assert "Not comparable" not in verdict


def test_headline_keeps_origins_apart(written):
    _, body = written
    values = {item["kind"]: item for item in body["headline"]["values"]}
    assert values["quoted"]["value"] == 0.356
    # rows whose ranks had cores of their own: 20 / 14 - 1
    assert values["measured"]["value"] == pytest.approx(20 / 14 - 1)
    assert values["measured"]["where"].startswith("6 rows")
    assert "projected" not in values


def test_missing_inputs_name_their_commands(tmp_path):
    files.write_json(
        tmp_path / "results" / "demo" / "demo_standard" / "perplexity.json", result_files.perplexity("demo_standard")
    )
    body = write_report(config(tmp_path), "f")
    commands = {item["what"]: item["command"] for item in body["missing"]}
    assert set(commands) == {"training", "SuperGLUE", "engines", "measured TTFT", "projected TTFT"}
    assert commands["projected TTFT"] == "python -m stages.project_ttft benchmark=ttft_paper scale=demo"
    assert set(body["tables"]) == {"models", "perplexity"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(command in page for command in commands.values())


def test_results_without_a_baseline_are_compared_with_the_first_model(tmp_path):
    asked: list[tuple[str, str]] = []
    for model in ("demo_kraken_4way", "demo_standard", "demo_parallel"):
        body = result_files.superglue(model) | {"baseline": None, "item_outcomes": [{"task": "cb"}]}
        files.write_json(tmp_path / "results" / "demo" / model / "superglue_3shot.json", body)

    def compare(ours, baseline):
        asked.append((ours["model"], baseline["model"]))
        gap = {"difference": 1.5, "standard_error": 1.0, "low": -0.5, "high": 3.5, "p_value": 0.1, "is_noise": True}
        return {"model": baseline["model"], "differences": {"mean": gap}, "sentence": f"{ours['model']} compared."}

    body = write_report(config(tmp_path), "f", compare)
    assert set(asked) == {("demo_kraken_4way", "demo_standard"), ("demo_parallel", "demo_standard")}
    rows = body["tables"]["superglue_3shot_differences"]["rows"]
    assert {row["model"] for row in rows} == {"demo_kraken_4way", "demo_parallel"}
    assert "demo_parallel compared." in body["tables"]["superglue_3shot"]["verdict"]


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="nothing to report") as caught:
        write_report(config(tmp_path), "f")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "report").exists()


def test_a_damaged_file_is_named_and_left_out(tmp_path):
    result_files.write_all(tmp_path)
    damaged = tmp_path / "results" / "demo" / "demo_parallel" / "training.json"
    damaged.write_text("{", encoding="utf-8")
    inputs = read_inputs(tmp_path / "results", tmp_path / "engines", "demo", [])
    assert [str(damaged) in fault for fault in inputs.faults] == [True]
    assert [row["model"] for row in tables(tmp_path)["training"].rows] == ["demo_standard", "demo_kraken_4way"]


class Loads(HTMLParser):
    """Every address that a browser would fetch to show the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        for name, value in attributes:
            if name in ("src", "srcset", "data") or (name in ("href", "xlink:href") and tag != "a"):
                self.found.append(value or "")


def test_the_page_needs_nothing_else(written):
    page = (written[0] / "index.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert all(address.startswith(("#", "data:")) for address in loads.found)
    assert loads.scripts == 0
    assert "url(http" not in page and "@import" not in page
    assert page.count("<svg") == len(written[1]["figures"])
    ids = re.findall(r'<(?:section|figure) id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_json_holds_no_nan(written):
    folder, _ = written

    def refuse(name: str):
        raise AssertionError(name)

    json.loads((folder / "report.json").read_text(), parse_constant=refuse)
    assert without_nan({"a": [math.nan, 1.0, {"b": math.inf}]}) == {"a": [None, 1.0, {"b": None}]}


def test_tables_and_figures_are_files(written):
    folder, body = written
    for name, table in body["tables"].items():
        with (folder / "tables" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(table["rows"])
        assert [row["kind"] for row in rows] == [row["kind"] for row in table["rows"]]
    for figure in body["figures"].values():
        assert (folder / figure["png"]).read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / figure["svg"]).read_bytes()


def test_a_second_report_leaves_nothing_stale_and_touches_nothing_else(tmp_path):
    results = tmp_path / "results" / "demo"
    files.write_json(results / "ttft-ttft_demo.json", result_files.ttft())
    files.write_json(results / "demo_standard" / "perplexity.json", result_files.perplexity("demo_standard"))
    write_report(config(tmp_path), "f")
    own = tmp_path / "report" / "notes.txt"
    own.write_text("mine", encoding="utf-8")
    (tmp_path / "results" / "demo" / "ttft-ttft_demo.json").unlink()
    body = write_report(config(tmp_path), "f")
    left = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert left == {f"{name}.csv" for name in body["tables"]}
    assert not (tmp_path / "report" / "figures" / "ttft_ttft_demo.png").exists()
    assert own.read_text() == "mine"


def test_an_experiment_orders_the_models(tmp_path):
    result_files.write_all(tmp_path)
    order = ["demo_kraken_4way", "demo_standard", "demo_parallel"]
    assert read_inputs(tmp_path / "results", tmp_path / "engines", "demo", order).models == order


def test_summary_shows_measured_rows(written):
    text = summary(written[1])
    assert "demo_kraken_4way" in text
    assert "GPT-2" not in text  # quoted rows stay in the report
    assert "published: +35.6% (quoted; " in text
    assert DEMO in text


def test_a_row_must_say_where_it_comes_from():
    with pytest.raises(ValueError, match="without a kind"):
        Table("t", "T", [Column("a", "A")], [{"a": 1}])


def test_cells_are_written_with_errors_and_no_added_digits():
    column = Column("x", "X", "%", "number", 3, "e")
    assert column.text({"kind": "measured", "x": 1.23456, "e": 0.1}) == "1.235 ± 0.100"
    assert column.text({"kind": "quoted", "x": 60.0}) == "60.0"
    assert column.text({"kind": "measured"}) == "–"
    assert Column("x", "X", "", "signed_percent", 1).text({"kind": "measured", "x": -0.0321}) == "-3.2%"
