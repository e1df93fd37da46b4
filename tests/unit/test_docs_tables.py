"""Pages, figures and committed measurements say the same, and the check notices where they do not."""

from pathlib import Path

import pytest

from benchmarks import docs_tables
from pipeline.report import figures_of_docs
from pipeline.report.blocks import PAGES, REFERENCE, ROOT, written
from pipeline.report.ttft_blocks import FOLDER
from pipeline.results import TtftResult, read
from pipeline.results.headline import Named, headline
from pipeline.results.statistics import summarise

MEASURED = ("sweep", "band_socket", "band_gloo", "wire", "surface", "serving")


def measured(name: str) -> TtftResult:
    return read(REFERENCE / FOLDER / f"{name}.json", TtftResult)


@pytest.mark.parametrize("page", PAGES)
def test_pages_say_what_the_files_say(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == written(page), "python -m benchmarks.docs_tables"


def test_figures_are_of_the_committed_results() -> None:
    assert figures_of_docs.stale() == []


def test_the_check_names_the_block_that_differs(monkeypatch, tmp_path, capsys) -> None:
    pages = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    edited = pages["docs/ttft.md"].replace("| kraken flops |", "| kraken flops (edited) |")
    assert edited != pages["docs/ttft.md"]
    for page, text in {**pages, "docs/ttft.md": edited}.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(text, encoding="utf-8")
    monkeypatch.setattr(docs_tables, "ROOT", tmp_path)
    assert docs_tables.main(["--check"]) == 1
    assert "docs/ttft.md: the block 'ttft, headline' differs from the results" in capsys.readouterr().err


def test_a_figure_of_other_results_is_stale(monkeypatch, tmp_path) -> None:
    page, source = figures_of_docs.SURFACE
    other = tmp_path / source.name
    other.write_bytes(source.read_bytes() + b"\n")
    monkeypatch.setattr(figures_of_docs, "ROOT", tmp_path)
    monkeypatch.setattr(figures_of_docs, "SURFACE", (page, other))
    (tmp_path / page).parent.mkdir()
    (tmp_path / page).write_bytes((ROOT / page).read_bytes())
    assert figures_of_docs.stale() == [f"{page} was made of other results than {source.name}"]


@pytest.mark.parametrize("name", MEASURED)
def test_every_file_says_where_it_was_made(name: str) -> None:
    result = measured(name)
    assert result.provenance is not None
    assert result.provenance["device"]["cpu"] and result.provenance["commit"] and result.provenance["versions"]["torch"]
    assert not any(str(Path.home()) in path or path.startswith("/") for path in result.provenance["inputs"])
    assert result.protocol.launches >= 3


def test_the_check_misses_a_block_that_no_page_shows(monkeypatch, capsys) -> None:
    made = docs_tables.blocks()
    monkeypatch.setattr(docs_tables, "blocks", lambda: {**made, "ttft, unheard of": ""})
    assert docs_tables.main(["--check"]) == 1
    assert "no page shows the block 'ttft, unheard of'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["sweep", "band_socket", "band_gloo"])
def test_the_headline_follows_from_the_samples(name: str) -> None:
    result = measured(name)
    named = {(cell.link, cell.context) for entry in result.headline.named for cell in entry.cells}
    links, contexts = ([*dict.fromkeys(one[side] for one in sorted(named))] for side in (0, 1))
    assert headline(result.rows, Named([link for link in links if link], contexts)) == result.headline
    for row in result.rows:
        own = summarise(row.samples_ms)
        assert (own.median, own.low, own.high) == (row.ttft_ms_median, row.ttft_ms_low, row.ttft_ms_high)
