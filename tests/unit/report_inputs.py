"""Results put where the report looks for them, and what it reads there."""

from pathlib import Path

from pipeline.report.inputs import Inputs, read_inputs
from pipeline.results import Result, write
from tests.unit import result_files

PAPERS = "projection-a100_40gb_nvswitch-ttft_paper.json"


def put(root: Path, name: str, result: Result) -> None:
    write(root / "results" / "demo" / name, result, result_files.PROVENANCE)


def read(root: Path, scale: str = "demo", order: tuple[str, ...] = ()) -> Inputs:
    return read_inputs(root / "results", root / "engines", scale, list(order))
