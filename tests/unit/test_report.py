"""The report from result files of the pipeline's own writers: it shows what they hold and nothing else."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.compose import compose, model_config
from pipeline.errors import PipelineError
from pipeline.experiment.places import place
from pipeline.projection.grid import project
from pipeline.projection.hardware import Hardware
from pipeline.report import style, summary
from pipeline.report.build import DEMO, make_figures, make_tables, write_report
from pipeline.report.inputs import DEMO as DEMO_LABEL
from pipeline.report.inputs import Inputs, ordered, read_inputs
from pipeline.report.table import Column, Table, is_measured
from pipeline.results import BASELINE, BOUND, KINDS, Result, TtftResult, write
from pipeline.results.headline import headline
from pipeline.results.tasks import against_published
from pipeline.results.ttft import NO_LINK, PARTS
from tests.unit import result_files
from tests.unit.result_files import settings

MODELLED = "measured compute, modelled communication"
PAPERS = "projection-a100_40gb_nvswitch-ttft_paper.json"


def put(root: Path, name: str, result: Result) -> None:
    write(root / "results" / "demo" / name, result, result_files.PROVENANCE)


def read(root: Path, scale: str = "demo", order: tuple[str, ...] = ()) -> Inputs:
    return read_inputs(root / "results", root / "engines", scale, list(order))


def tables(root: Path, scale: str = "demo") -> dict[str, Table]:
    """Tables by name, without the page and the figures, which take seconds."""
    return {table.name: table for table in make_tables(read(root, scale), compose([]).reference)}


def renamed(result: Any, **names: str) -> Any:
    """A result whose architectures are called otherwise, its headline made again as its writer makes it."""

    def named(rows: list[Any]) -> list[Any]:
        return [row.model_copy(update={"architecture": names.get(row.architecture, row.architecture)}) for row in rows]

    lists = ("rows", "timelines", *(["breakdown"] if isinstance(result, TtftResult) else ["link_sweep"]))
    changed = result.model_copy(update={name: named(getattr(result, name)) for name in lists})
    return changed.model_copy(update={"headline": headline(changed.rows)})


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
        assert any("brand_new_ms" in row or row.get("architecture") == "brand_new" for row in table.rows), table.name
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


def test_missing_inputs_name_their_commands(tmp_path):
    put(tmp_path, "demo_standard/perplexity.json", result_files.perplexity(tmp_path, "demo_standard"))
    body = write_report(settings(tmp_path), "f")
    commands = {item["what"]: item["command"] for item in body["missing"]}
    assert set(commands) == {"training", "SuperGLUE", "engines", "measured TTFT", "projected TTFT"}
    assert commands["projected TTFT"] == "python -m stages.project_ttft benchmark=ttft_paper scale=demo"
    assert set(body["tables"]) == {"models", "perplexity"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(command in page for command in commands.values())


def test_results_without_a_baseline_are_compared_with_the_first_model(tmp_path):
    for model in ("demo_kraken_4way", "demo_parallel", "demo_standard"):  # the baseline scored last
        put(tmp_path, f"{model}/superglue_3shot.json", result_files.superglue(tmp_path, model))
    rows = tables(tmp_path)["superglue_3shot_differences"].rows
    assert {(row["model"], row["baseline"]) for row in rows} == {
        ("demo_kraken_4way", "demo_standard"),
        ("demo_parallel", "demo_standard"),
    }


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="nothing to report") as caught:
        write_report(settings(tmp_path), "f")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("demo_parallel/training.json", "{", "damaged"),
        ("demo_parallel/training.json", '{"schema_name": "training", "schema_version": 99}', "training 99"),
        ("demo_parallel/training.json", '{"schema_name": "training", "schema_version": 3}', "damaged"),
        ("demo_parallel/odd.json", '{"tasks": {}}', "no schema"),
        ("ttft-ttft_demo.json", '{"rows": []}', "no schema"),
        ("odd.json", "{}", "no kind of result"),
    ],
)
def test_a_file_that_is_no_result_is_one_line_and_left_out(tmp_path, name, text, says):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    files.write_text(tmp_path / "results" / "demo" / name, text)
    body = write_report(settings(tmp_path), "f")
    (fault,) = body["faults"]
    assert name in fault and says in fault and "\n" not in fault
    assert [row["model"] for row in body["tables"]["training"]["rows"]] == ["demo_standard"]
    assert fault in summary(body)
    assert says in (tmp_path / "report" / "index.html").read_text()


def test_a_result_of_another_scale_is_left_out(tmp_path):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    put(tmp_path, "ttft-ttft_demo.json", result_files.ttft(tmp_path, scale="paper", links=("loopback",)))
    inputs = read(tmp_path)
    assert not inputs.ttft and "is of scale paper, not demo" in inputs.faults[0]


def test_engines_and_training_of_another_scale_are_left_out(tmp_path):
    result_files.write_all(tmp_path, "demo")
    (tmp_path / "results" / "demo").rename(tmp_path / "results" / "small_gpu")
    timed = result_files.ttft(tmp_path, scale="small_gpu", links=("loopback",))
    write(tmp_path / "results/small_gpu/ttft-ttft_demo.json", timed, result_files.PROVENANCE)
    inputs = read(tmp_path, "small_gpu")
    assert not inputs.engines and not inputs.training and list(inputs.ttft) == ["ttft_demo"]
    assert any("training.json is of scale demo, not small_gpu" in fault for fault in inputs.faults)
    assert not any("engine.json" in fault for fault in inputs.faults)


def test_a_result_in_the_place_of_another_is_left_out(tmp_path):
    scored = result_files.superglue(tmp_path, "demo_standard")
    timed = result_files.ttft(tmp_path, links=("loopback",))
    put(tmp_path, "demo_standard/superglue_3shot.json", scored)
    put(tmp_path, "demo_parallel/superglue_3shot.json", scored)
    put(tmp_path, "demo_standard/superglue_0shot.json", scored)
    put(tmp_path, "demo_parallel/training.json", result_files.training(tmp_path, "demo_standard"))
    put(tmp_path, "ttft-ttft_cpu.json", timed)
    put(tmp_path, "ttft-ttft_demo-sweep.json", timed)
    put(tmp_path, "projection-h100_sxm-ttft_paper.json", result_files.projection(tmp_path))
    overridden = result_files.PROVENANCE | {"file": "demo/ttft-ttft_demo~0a1b2c.json"}
    write(tmp_path / "results/demo/ttft-ttft_demo.json", timed, overridden)  # renamed by hand
    write(tmp_path / "results/demo/ttft-ttft_demo~0a1b2c.json", timed, overridden)
    inputs = read(tmp_path)
    assert set(inputs.ttft) == {"ttft_demo-sweep", "ttft_demo~0a1b2c"} and not inputs.projections
    assert {name: list(scored) for name, scored in inputs.tasks.items()} == {"superglue_3shot": ["demo_standard"]}
    text = "\n".join(inputs.faults)
    assert len(inputs.faults) == 6 and not inputs.training
    for says in (
        "demo_parallel/superglue_3shot.json is of model demo_standard",
        "superglue_0shot.json is of evaluation superglue_3shot",
        "ttft-ttft_cpu.json is of benchmark ttft_demo",
        "is of hardware a100_40gb_nvswitch and benchmark ttft_paper",
        "ttft-ttft_demo.json was written as demo/ttft-ttft_demo~0a1b2c.json",
    ):
        assert says in text


def test_a_projected_row_among_measured_ones_is_a_fault(tmp_path):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    timed = result_files.ttft(tmp_path, links=("loopback",))
    projected = timed.rows[0].model_copy(update={"kind": "projected"})
    put(tmp_path, "ttft-ttft_demo.json", timed.model_copy(update={"rows": [projected, *timed.rows[1:]]}))
    inputs = read(tmp_path)
    assert not inputs.ttft and "has a row of kind projected" in inputs.faults[0]


def test_a_row_of_an_unknown_kind_is_a_fault(tmp_path):
    put(tmp_path, "ttft-ttft_demo.json", result_files.ttft(tmp_path, links=("loopback",)))
    path = tmp_path / "results" / "demo" / "ttft-ttft_demo.json"
    body = files.read_json(path)
    body["rows"][0]["kind"] = "guessed"
    files.write_json(path, body)
    put(tmp_path, PAPERS, result_files.projection(tmp_path))
    inputs = read(tmp_path)
    assert not inputs.ttft and len(inputs.projections) == 1
    assert [("kind" in fault, str(path) in fault) for fault in inputs.faults] == [(True, True)]


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


def test_a_row_must_say_where_it_comes_from():
    with pytest.raises(ValueError, match="without a kind"):
        Table("t", "T", [Column("a", "A")], [{"a": 1}])


def test_cells_are_written_with_errors_and_no_added_digits():
    column = Column("x", "X", "%", "number", 3, "e")
    assert column.text({"kind": "measured", "x": 1.23456, "e": 0.1}) == "1.235 ± 0.100"
    assert column.text({"kind": "quoted", "x": 60.0}) == "60.0"
    assert column.text({"kind": "measured"}) == "–"
    assert Column("x", "X", "", "signed_percent", 1).text({"kind": "measured", "x": -0.0321}) == "-3.2%"
