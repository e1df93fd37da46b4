"""The report of a whole run, from result files of the pipeline's own writers: what they hold and nothing else."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from pipeline import files
from pipeline.report import summary
from pipeline.report.build import DEMO, write_report
from pipeline.report.inputs import DEMO as DEMO_LABEL
from pipeline.report.table import is_measured
from pipeline.results import BASELINE, KINDS, write
from pipeline.results.cell import NO_LINK
from tests.unit import result_files
from tests.unit.report_inputs import PAPERS, put, read
from tests.unit.result_files import settings

MODELLED = "measured compute, modelled communication"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A whole demo run's report: (root, body of report.json)."""
    root = tmp_path_factory.mktemp("run")
    result_files.write_all(root)
    put(root, "ttft-ttft_one_rank.json", result_files.one_rank(root))
    put(root, PAPERS, result_files.projection(root))
    write_report(settings(root), "0123456789ab")
    return root, files.read_json(root / "report" / "report.json")


def test_report_json_is_whole(written):
    _, body = written
    assert body["scale"] == "demo"
    expected = {"models", "training", "perplexity", "superglue_3shot", "superglue_3shot_differences", "engines"}
    expected |= {"ttft_ttft_demo", "ttft_ttft_one_rank", "speedups", "table6", "table7"}
    expected |= {"fastest_ttft_demo", "fastest_ttft_one_rank"}
    assert set(body["tables"]) == expected | {"projection_a100_40gb_nvswitch-ttft_paper"}
    for table in body["tables"].values():
        assert table["rows"]
        assert all(row["kind"] in KINDS for row in table["rows"])
    figures = {"training_curves", "perplexity", "superglue_3shot", "ttft_ttft_demo", "published_speedups"}
    figures |= {f"{name}_ttft_demo" for name in ("breakdown", "timeline", "speedup_link", "ttft_tp")}
    assert figures <= set(body["figures"])
    assert body["provenance"]["config_fingerprint"] == "0123456789ab"
    assert len(body["sources"]) == 3 * 4 + 3
    assert body["faults"] == []


@pytest.mark.parametrize("name", ["ttft_demo", "ttft_one_rank"])
def test_rows_are_the_files_own(written, name):
    root, body = written
    result = files.read_json(root / "results" / "demo" / f"ttft-{name}.json")
    shown = body["tables"][f"ttft_{name}"]["rows"]
    assert len(shown) == len(result["rows"])
    for ours, theirs in zip(shown, result["rows"], strict=True):
        same = {key: value for key, value in theirs.items() if not isinstance(value, list)}
        assert same.items() <= ours.items()


def test_geometric_means_are_the_files_own(written):
    """Kind, interval and value of every one, whatever rows without communication stand beside them."""
    root, body = written
    entries = []
    for path in sorted((root / "results" / "demo").glob("*.json")):
        entries += [entry for band in files.read_json(path)["headline"].values() for entry in band]
    keys = ("kind", "architecture", "geomean_speedup", "geomean_speedup_low", "geomean_speedup_high", "rows")
    held = [tuple(entry[key] for key in keys) for entry in entries if entry["architecture"] != BASELINE]
    _, *shown = body["tables"]["speedups"]["rows"]
    assert sorted(map(str, held)) == sorted(str(tuple(row[key] for key in keys)) for row in shown)

    cards = body["headline"]["values"]
    assert [card["kind"] for card in cards] == ["quoted", "projected", "measured", MODELLED]
    one_rank = files.read_json(root / "results" / "demo" / "ttft-ttft_one_rank.json")["headline"]["all"]
    kraken = next(entry for entry in one_rank if entry["architecture"] == "kraken")
    assert (cards[3]["value"], cards[3]["low"], cards[3]["high"]) == (
        kraken["geomean_speedup"],
        kraken["geomean_speedup_low"],
        kraken["geomean_speedup_high"],
    )
    assert cards[0]["value"] == 0.356
    assert cards[2]["where"].startswith("6 cells: demo; 128, 256 tokens; batch 1; TP 2; link loopback, 300mbit, 1gbit")


def test_compute_alone_is_no_time_to_first_token(written):
    _, body = written
    assert {row["link"] for row in body["tables"]["ttft_ttft_one_rank"]["rows"]} >= {NO_LINK}
    assert not any(row.get("link") == NO_LINK for row in body["tables"]["table6"]["rows"])
    assert [row["kind"] for row in body["tables"]["table6"]["rows"] if row["source"] == "ttft_one_rank"] == [MODELLED]
    assert body["figures"]["ttft_ttft_one_rank"]["kinds"] == [MODELLED, "measured"]
    assert f"Over standard, {MODELLED}" in body["tables"]["ttft_ttft_one_rank"]["verdict"]


def test_a_demo_is_labelled(written):
    root, body = written
    assert body["demo"] == DEMO
    for table in body["tables"].values():
        if any(row["kind"] not in ("quoted", "projected") for row in table["rows"]):
            assert table["demo"] == DEMO_LABEL
        assert all(row["scale"] == "demo" for row in table["rows"] if is_measured(row))
    page = (root / "report" / "index.html").read_text()
    sections = re.findall(r'<section id="table-.*?</section>', page, flags=re.DOTALL)
    assert len(sections) == len(body["tables"])
    assert sum('class="demo"' in section for section in sections) == sum(
        bool(table["demo"]) for table in body["tables"].values()
    )


def test_no_label_at_another_scale(tmp_path):
    folder = tmp_path / "results" / "paper"
    here = result_files.perplexity(tmp_path, "demo_standard").model_copy(update={"scale": "paper"})
    write(folder / "demo_standard" / "perplexity.json", here, result_files.PROVENANCE)
    timed = result_files.ttft(tmp_path, scale="paper", links=("loopback",))
    write(folder / "ttft-ttft_demo.json", timed, result_files.PROVENANCE)
    body = write_report(settings(tmp_path, "scale=paper", "model=kraken_124m_4way"), "f")
    assert {"perplexity", "ttft_ttft_demo"} < set(body["tables"])
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


def test_projections_stand_beside_published_and_measured_times(written):
    root, body = written
    rows = body["tables"]["table6"]["rows"]
    assert [row["kind"] for row in rows[:2]] == ["quoted", "projected"]
    projected = files.read_json(root / "results" / "demo" / PAPERS)["rows"]
    kraken = next(row for row in projected if row["architecture"] == "kraken" and row["tp_size"] == 4)
    assert rows[1]["kraken_ms"] == kraken["projected_ms"]
    assert rows[1]["kraken_speedup"] == kraken["speedup"]
    measured = [row for row in rows if row["kind"] == "measured"]
    assert {row["size"] for row in measured} == {"demo"} and all(row["oversubscribed"] for row in measured)


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
    root, body = written
    page = (root / "report" / "index.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert all(address.startswith(("#", "data:")) for address in loads.found)
    assert loads.scripts == 0
    assert "url(http" not in page and "@import" not in page
    assert page.count("<svg") == len(body["figures"])
    ids = re.findall(r'<(?:section|figure) id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_json_holds_no_nan(written):
    def refuse(name: str):
        raise AssertionError(name)

    json.loads((written[0] / "report" / "report.json").read_text(), parse_constant=refuse)


def test_tables_and_figures_are_files(written):
    folder, body = written[0] / "report", written[1]
    for name, table in body["tables"].items():
        with (folder / "tables" / f"{name}.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(table["rows"])
        assert [row["kind"] for row in rows] == [row["kind"] for row in table["rows"]]
    for figure in body["figures"].values():
        assert (folder / figure["png"]).read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / figure["svg"]).read_bytes()


def test_a_second_report_leaves_nothing_stale_and_touches_nothing_else(tmp_path):
    put(tmp_path, "ttft-ttft_demo.json", result_files.ttft(tmp_path, links=("loopback",)))
    put(tmp_path, "demo_standard/perplexity.json", result_files.perplexity(tmp_path, "demo_standard"))
    write_report(settings(tmp_path), "f")
    own = tmp_path / "report" / "notes.txt"
    own.write_text("mine", encoding="utf-8")
    (tmp_path / "results" / "demo" / "ttft-ttft_demo.json").unlink()
    body = write_report(settings(tmp_path), "f")
    left = {path.name for path in (tmp_path / "report" / "tables").iterdir()}
    assert left == {f"{name}.csv" for name in body["tables"]}
    assert not (tmp_path / "report" / "figures" / "ttft_ttft_demo.png").exists()
    assert own.read_text() == "mine"


def test_an_experiment_orders_the_models(written):
    order = ("demo_kraken_4way", "demo_standard", "demo_parallel")
    assert read(written[0], order=order).models == list(order)
    assert read(written[0]).models == ["demo_standard", "demo_parallel", "demo_kraken_4way"]


def test_summary_shows_measured_rows(written):
    text = summary(written[1])
    assert "demo_kraken_4way" in text
    assert "GPT-2" not in text  # quoted rows stay in the report
    assert "published: +35.6% (quoted; " in text
    assert f"({MODELLED}; 1 cell: " in text
    assert DEMO in text


def test_summary_shows_scores_of_overridden_settings(tmp_path):
    scored = result_files.superglue(tmp_path, "demo_standard")
    put(tmp_path, "demo_standard/superglue_3shot~0a1b2c.json", scored)
    body = write_report(settings(tmp_path), "f")
    (table,) = [table for name, table in body["tables"].items() if name == "superglue_3shot~0a1b2c"]
    assert f"\n{table['title']} (measured)" in summary(body) and body["faults"] == []
