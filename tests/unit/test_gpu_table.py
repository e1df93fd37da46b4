"""What the command for a GPU machine found, as the documentation and the terminal show it."""

import pytest

from benchmarks.gpu import parts, table
from benchmarks.gpu.place import slug
from benchmarks.gpu.results import GpuResult

BY_NAME = {part.name: part for part in parts.PARTS}


def test_docs_show_what_results_hold():
    text = table.DOCS.read_text(encoding="utf-8")
    between = text.split(table.BEGIN)[1].split(table.END)[0]
    assert between.strip() == table.markdown(parts.PARTS), "python -m benchmarks.gpu --docs writes it again"


def test_what_was_measured_takes_its_place_and_a_rehearsal_does_not(tmp_path):
    unknown = table.markdown(parts.PARTS, tmp_path)
    rows = unknown.splitlines()[2:]
    assert len(rows) == sum(len(part.wanted) for part in parts.PARTS)
    assert all(row.endswith("| not measured |") for row in rows)
    folder = tmp_path / slug("NVIDIA H100 80GB HBM3")
    folder.mkdir()
    part = BY_NAME["train_kraken"]
    figures = [part.figure("MFU", 0.4321), part.figure("losses finite", 1)]
    result = GpuResult(part=part.name, identity="x", device="d", rehearsal=False, wall_s=1, figures=figures)
    path = folder / f"{part.name}.json"
    path.write_text(result.model_copy(update={"rehearsal": True}).model_dump_json())
    assert table.markdown(parts.PARTS, tmp_path) == unknown
    path.write_text(result.model_dump_json())
    shown = table.markdown(parts.PARTS, tmp_path)
    assert shown.splitlines()[0] == "| part | figure | to reach | nvidia-h100-80gb-hbm3 |"
    assert "| `train_kraken` | MFU | at least 40.0% | 43.2% |" in shown
    assert "| `train_kraken` | tokens a second |  | not measured |" in shown
    text = table.text([part, BY_NAME["resume"]], {part.name: result})
    assert "43.2%" in text and "reached" in text and "resume" in text and "not measured" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "not measured"),
        (0, "yes/no", "no"),
        (2.5e9, "bytes", "2.50 GB"),
        (1234.5, "tokens/s", "1,234 tokens/s"),
    ],
)
def test_numbers_are_shown_with_their_unit(value, unit, text):
    assert table.shown(value, unit) == text
