"""The report's section on quality at the same tokens: what a study's files hold, and what is not there."""

import csv
import re

import pytest

from pipeline import files, provenance
from pipeline.compose import compose
from pipeline.errors import ResultError
from pipeline.report import same_tokens, same_tokens_blocks, same_tokens_figures, summary
from pipeline.report.build import make_tables, write_report
from pipeline.report.study import Study, count
from pipeline.results import write
from tests.unit import result_files, study_results
from tests.unit.report_inputs import put, read
from tests.unit.result_files import settings

PARTS = ("search", "quality", "trade")


def put_study(root, folder="same_tokens", parts=PARTS, **options):
    for part in parts:
        own = options if part == "quality" else {}
        put(root, f"{folder}/{part}.json", getattr(study_results, part)(study=folder.partition("~")[0], **own))


def tables(root):
    return {table.name: table for table in make_tables(read(root), compose([]).reference)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    put_study(root)
    body = write_report(settings(root), "0123456789ab")
    return root, body, (root / "report" / "index.html").read_text()


@pytest.fixture(scope="module")
def file(written):
    """The study's own numbers, as plain JSON."""
    return {part: files.read_json(written[0] / f"results/demo/same_tokens/{part}.json") for part in PARTS}


def test_the_section_holds_every_table_and_figure(written):
    _, body, page = written
    own = {f"{name}_same_tokens" for name in ("losses", "claims", "laws", "trade", "recipes")}
    assert {name for name, table in body["tables"].items() if table["study"]} == own
    drawn = {f"{name}_same_tokens" for name in ("differences", "loss_tokens", "loss_parameters", "trade", "search")}
    assert {name for name, figure in body["figures"].items() if figure["study"]} == drawn
    section = page[page.index('id="study-same_tokens"') : page.index("<h2>Figures</h2>")]
    ids = set(re.findall(r'id="((?:table|figure)-\w+)"', section))
    assert ids == {f"table-{name}" for name in own} | {f"figure-{name}" for name in drawn}
    assert page.count("<svg") == len(body["figures"]) and body["faults"] == []
    (study,) = body["studies"]
    assert study["title"] == "Quality on the same tokens" and study["missing"] == []


def test_the_question_and_the_trade_are_answered_in_words(written, file):
    _, body, page = written
    (study,) = body["studies"]
    assert study["question"] == file["quality"]["question"]
    assert study["verdicts"] == [study["line"], file["trade"]["verdict"]]
    assert file["trade"]["verdict"] in page


def test_rows_of_losses_are_the_cells_of_the_file_the_central_one_first(written, file):
    rows = written[1]["tables"]["losses_same_tokens"]["rows"]
    cells = {(cell["arm"], cell["size"], cell["tokens"]): cell for cell in file["quality"]["cells"]}
    models = {(model["arm"], model["size"]): model for model in file["quality"]["models"]}
    assert len(rows) == len(cells) == 5 * 9
    for row in rows:
        cell, model = cells[row["arm"], row["size"], row["tokens"]], models[row["arm"], row["size"]]
        loss, gap = cell["loss_nats"], cell["difference_nats"]
        assert (row["loss_nats"], row["loss_nats_low"], row["loss_nats_high"]) == tuple(loss.values())
        assert row.get("difference_nats") == (gap and gap["value"])
        assert {key: row[key] for key in model} == model
    order = list(dict.fromkeys((row["size"], row["tokens"]) for row in rows))
    low, central, high = study_results.TOKENS
    assert order == [("m", central), ("m", low), ("m", high), ("s", central), ("l", central)]
    assert [row["arm"] for row in rows[:9]] == list(study_results.ARMS)


def test_every_row_says_its_kind_and_a_demo_that_it_is_one(written):
    _, body, _ = written
    for table in body["tables"].values():
        for row in table["rows"] if table["study"] else []:
            assert row.get("scale") == (None if row["kind"] == "projected" else "demo")
        assert not table["study"] or table["demo"]
    kinds = [row["kind"] for row in body["tables"]["trade_same_tokens"]["rows"]]
    assert kinds == ["measured"] * 27 + ["projected"] * 27
    assert body["figures"]["trade_same_tokens"]["kinds"] == ["measured", "projected"]
    assert "4 × a100_40gb_nvswitch in float16, 256 prompt tokens" in body["figures"]["trade_same_tokens"]["caption"]


def test_intervals_are_written_into_cells_and_csv(written, file):
    root, _, page = written
    with (root / "report/tables/losses_same_tokens.csv").open() as opened:
        row = next(row for row in csv.DictReader(opened) if row["arm"] == "kraken_4way")
    gap = next(
        cell["difference_nats"]
        for cell in file["quality"]["cells"]
        if (cell["arm"], cell["size"], cell["tokens"]) == ("kraken_4way", "m", study_results.TOKENS[1])
    )
    assert [float(row[f"difference_nats{end}"]) for end in ("", "_low", "_high")] == list(gap.values())
    assert f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})" in page


def test_laws_stand_in_the_legend_of_their_own_count(written, file):
    svg = (written[0] / "report/figures/loss_parameters_same_tokens.svg").read_text()
    for counted in ("parameters", "layer_parameters"):
        found = next(law for law in file["quality"]["laws"] if (law["arm"], law["against"]) == ("kraken_2way", counted))
        exponent = found["exponent"]
        words = f"kraken 2way: {exponent['value']:.3f} ({exponent['low']:.3f} to {exponent['high']:.3f})"
        assert words in svg


def test_the_summary_has_one_line(written, file):
    _, body, page = written
    parts = []
    for cell in file["quality"]["cells"]:
        if cell["arm"].startswith("kraken") and (cell["size"], cell["tokens"]) == ("m", study_results.TOKENS[1]):
            gap = cell["difference_nats"]
            parts.append(f"{cell['arm'].replace('_', ' ')} {gap['value']:+.2f} ({gap['low']:.2f} to {gap['high']:.2f})")
    line = f"Same tokens, m at 393k: {', '.join(parts)} nats on standard (measured, 95% over seeds)"
    assert len(parts) == 4 and line in summary(body) and line in page


def test_the_search_says_its_space_and_cost(written, file):
    (study,) = written[1]["studies"]
    cost = file["search"]["cost"]
    facts = " ".join(study["facts"])
    assert "rates 0.001, 0.002, 0.004, 0.008, initial scales 0.02, 0.06" in facts
    assert f"{cost['trials']} trials ({cost['stopped']} stopped, {cost['diverged']} diverged)" in facts
    assert f"{count(cost['flops'])} FLOPs, {cost['seconds']:,.0f} CPU wall seconds" in facts
    rows = written[1]["tables"]["recipes_same_tokens"]["rows"]
    assert [row["at_edge"] for row in rows] == [recipe["at_edge"] for recipe in file["search"]["recipes"]]
    assert sum(row["trials"] for row in rows) == cost["trials"] and True in [row["at_edge"] for row in rows]


def test_claims_are_the_files_own(written, file):
    _, body, _ = written
    shown = [(row["claim"], row["verdict"], row["because"]) for row in body["tables"]["claims_same_tokens"]["rows"]]
    assert shown == [(one["claim"], one["verdict"], one["because"]) for one in file["quality"]["claims"]]
    assert f"less than {file['quality']['margin_nats']} nats" in body["tables"]["claims_same_tokens"]["notes"][0]


def test_an_interrupted_study_shows_its_search_and_says_what_is_not_there(tmp_path):
    put_study(tmp_path, "ablation_ways", ("search",))
    body = write_report(settings(tmp_path), "f")
    (study,) = body["studies"]
    assert [name for name, figure in body["figures"].items() if figure["study"]] == ["search_ablation_ways"]
    assert [name for name, table in body["tables"].items() if table["study"]] == ["recipes_ablation_ways"]
    assert study["title"] == "Quality on the same tokens: ablation ways" and study["line"] == ""
    assert [item["command"] for item in study["missing"]] == [
        "python -m stages.compare_quality +experiment=ablation_ways scale=demo",
        "python -m stages.weigh_speed +experiment=ablation_ways scale=demo",
    ]
    assert "ablation_ways: losses over seeds" in summary(body)
    assert "stages.compare_quality" in (tmp_path / "report/index.html").read_text()


def test_several_studies_have_sections_of_their_own(tmp_path):
    put_study(tmp_path, parts=("quality",))
    put_study(tmp_path, "same_tokens~0a1b2c", ("quality",))
    inputs = read(tmp_path)
    titles = [same_tokens.section(inputs, study)["title"] for study in inputs.studies.values()]
    assert titles == [
        "Quality on the same tokens",
        "Quality on the same tokens: same_tokens~0a1b2c, settings overridden",
    ]
    assert {"losses_same_tokens", "losses_same_tokens~0a1b2c"} <= set(tables(tmp_path))


def test_runs_that_diverged_are_counted_and_never_a_number(tmp_path):
    put_study(tmp_path, parts=("quality",), diverging="kraken_4way")
    inputs = read(tmp_path)
    study = inputs.studies["same_tokens"]
    table = tables(tmp_path)["losses_same_tokens"]
    row = next(row for row in table.rows if row["arm"] == "kraken_4way")
    texts = {column.key: column.text(row) for column in table.columns}
    assert (texts["loss_nats"], texts["difference_nats"], texts["diverged"]) == ("–", "–", "3")
    assert "kraken 4way diverged in 3 of 3 runs" in same_tokens.one_line(study)
    figure = same_tokens_figures.differences(inputs, study)
    assert figure is not None and "Too few pairs that ended: kraken 4way at 393k." in figure.caption
    assert same_tokens_figures.against_parameters(inputs, study) is not None


def test_a_single_size_and_token_count_has_no_line_to_draw(tmp_path):
    whole = study_results.quality()
    cut = [cell for cell in whole.cells if (cell.size, cell.tokens) == ("m", study_results.TOKENS[1])]
    study = Study("same_tokens", quality=whole.model_copy(update={"cells": cut, "laws": []}))
    put_study(tmp_path, parts=("quality",))
    inputs = read(tmp_path)
    assert same_tokens_figures.against_tokens(inputs, study) is None
    assert same_tokens_figures.against_parameters(inputs, study) is None


def test_what_contradicts_its_place_or_its_kind_is_left_out(tmp_path):
    put_study(tmp_path, parts=("search",))
    put(tmp_path, "ablation_ways/quality.json", study_results.quality())
    whole = study_results.quality()
    odd = whole.runs[0].model_copy(update={"kind": "projected"})
    put(tmp_path, "same_tokens/quality.json", whole.model_copy(update={"runs": [odd, *whole.runs[1:]]}))
    write(tmp_path / "results/demo/same_tokens/trade.json", study_results.trade(scale="cpu"), result_files.PROVENANCE)
    inputs = read(tmp_path)
    text = "\n".join(inputs.faults)
    assert len(inputs.faults) == 3 and list(inputs.studies) == ["same_tokens"]
    assert inputs.studies["same_tokens"].quality is None and inputs.studies["same_tokens"].trade is None
    for says in ("is of study same_tokens", "has a row of kind projected", "is of scale cpu, not demo"):
        assert says in text


def test_arms_share_their_architectures_colour_and_nothing_else(tmp_path):
    put_study(tmp_path, parts=("quality",))
    inputs = read(tmp_path)
    study = inputs.studies["same_tokens"]
    looks = {arm: study.drawn(arm, inputs.colours) for arm in study.arms}
    assert len({look["marker"] for look in looks.values()}) == len(looks)
    krakens = [look for arm, look in looks.items() if arm.startswith("kraken")]
    assert {look["color"] for look in krakens} == {inputs.colours["kraken"]}
    assert len({look["linestyle"] for look in krakens}) == 4
    assert len({look["color"] for look in looks.values()}) == 6


@pytest.mark.parametrize(
    ("number", "text"),
    [(65_536, "65.5k"), (393_216, "393k"), (999_600, "1M"), (147_456_000_000, "147B"), (3.1e15, "3.10e15"), (12, "12")],
)
def test_counts_in_three_digits(number, text):
    assert count(number) == text


def test_variants_of_a_trade_stand_beside_the_studys_own(tmp_path):
    put_study(tmp_path, parts=("quality", "trade"))
    own = study_results.trade()
    for stem in ("trade~abc123", "trade-rate", "trade~abc123-rate"):
        put(tmp_path, f"same_tokens/{stem}.json", own.model_copy(update={"verdict": f"No: {stem}."}))
    body = write_report(settings(tmp_path), "f")
    titles = {
        "trade": "",
        "trade-rate": ", link rate",
        "trade~abc123": ", settings overridden (trade~abc123)",
        "trade~abc123-rate": ", link rate, settings overridden (trade~abc123-rate)",
    }
    shown = {name: table for name, table in body["tables"].items() if name.startswith("trade")}
    assert body["faults"] == [] and list(shown) == [f"{stem}_same_tokens" for stem in titles]
    for stem, words in titles.items():
        assert shown[f"{stem}_same_tokens"]["title"] == f"Loss against TTFT{words}"
        assert body["figures"][f"{stem}_same_tokens"]["title"] == f"Loss against TTFT, same_tokens{words}"
        assert shown[f"{stem}_same_tokens"]["verdict"] == ("" if stem == "trade" else f"No: {stem}.")
        assert (tmp_path / f"report/tables/{stem}_same_tokens.csv").exists()
    assert body["studies"][0]["verdicts"][1:] == [own.verdict]


def test_a_variant_alone_is_not_taken_for_the_studys_own(tmp_path):
    put(tmp_path, "same_tokens/trade-rate.json", study_results.trade())
    put(tmp_path, "same_tokens/quality~abc123.json", study_results.quality())
    body = write_report(settings(tmp_path), "f")
    (study,) = body["studies"]
    assert study["verdicts"] == [] and "trade-rate_same_tokens" in body["figures"]
    assert [item["command"].split()[2] for item in study["missing"]] == [
        *("stages.search_recipes", "stages.compare_quality", "stages.weigh_speed")
    ]
    (fault,) = body["faults"]
    assert fault.endswith("quality~abc123.json: no kind of result that a report shows; left out")


@pytest.mark.parametrize("name", ["search", "quality", "trade", "trade~abc123", "training"])
def test_what_was_changed_by_hand_is_left_out_and_named(tmp_path, name):
    """The number stays of its type and in its range: only the digest of the body tells."""
    folder = "demo_standard" if name == "training" else "same_tokens"
    made = result_files.training if name == "training" else getattr(study_results, name.partition("~")[0])
    result = made(tmp_path, folder) if name == "training" else made()
    put_study(tmp_path, "ablation_ways", ("search",))
    path = tmp_path / f"results/demo/{folder}/{name}.json"
    write(path, result, result_files.PROVENANCE | {"body": provenance.fingerprint(result.body())})
    assert read(tmp_path).faults == [] and str(path) in read(tmp_path).sources
    text, changed = re.subn(r'("loss_nats": )(\{\s+"value": )?[\d.]+', r"\g<1>\g<2>1.0", path.read_text(), count=1)
    assert changed == 1
    path.write_text(text)
    inputs = read(tmp_path)
    assert inputs.faults == [f"{path} was changed by hand; make it again with {type(result).command}"]
    assert str(path) not in inputs.sources and list(inputs.studies) == ["ablation_ways"] and not inputs.training


@pytest.mark.parametrize("key", ["cells", "runs"])
def test_losses_of_a_model_that_is_not_described_are_a_fault(tmp_path, monkeypatch, key):
    whole = study_results.quality()
    other = {"cells": "runs", "runs": "cells"}[key]
    lost = [model for model in whole.models if (model.arm, model.size) != ("ladder", "l")]
    rest = [one for one in getattr(whole, other) if (one.arm, one.size) != ("ladder", "l")]
    put_study(tmp_path, parts=("search",))
    put(tmp_path, "same_tokens/quality.json", whole.model_copy(update={"models": lost, other: rest}))
    (fault,) = write_report(settings(tmp_path), "f")["faults"]
    assert fault.endswith("quality.json names arm ladder at size l, which its models lack; left out")
    monkeypatch.setattr(same_tokens_blocks, "STUDY", "same_tokens")
    with pytest.raises(ResultError, match=r"quality\.json names arm ladder at size l, which its models lack; make it"):
        same_tokens_blocks.blocks(tmp_path / "results" / "demo")


def test_recipes_say_what_was_not_tried_beside_them(tmp_path):
    found = study_results.search()
    recipes = [one.model_copy(update={"init_std": 0.04}) if one.arm == "ladder" else one for one in found.recipes]
    put(
        tmp_path,
        "same_tokens/search.json",
        found.model_copy(update={"init_stds": [0.06, 0.04, 0.02], "recipes": recipes}),
    )
    table = tables(tmp_path)["recipes_same_tokens"]
    assert {row["arm"]: row["scale_at_end"] for row in table.rows} == {
        arm: arm != "ladder" for arm in study_results.ARMS
    }
    assert "scale_at_end" in [column.key for column in table.shown_columns]
    assert "a rate next to the best one was not tried at its initial scale" in table.notes[0]
    assert "the smallest or largest that was tried" in table.notes[1]
