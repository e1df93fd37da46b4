"""Every test that is marked for a GPU, run by pytest on the files that hold one: others may import what is not here."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from importlib import util
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Answer, Found, Part, Wanted
from benchmarks.gpu.place import ROOT, Place
from benchmarks.gpu.settings import Settings
from pipeline.errors import RunError

MARK = re.compile(r"\bmark\.(gpu|multigpu)\b")
OUTCOMES = ("failure", "error", "skipped")
WANTED = (Wanted("passed", ""), Wanted("skipped", ""))


def part() -> Part:
    def read(settings: Settings) -> dict[str, Any]:
        return {"tests": {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in test_files()}}

    code = (
        "pipeline/engines/torch.py",
        "pipeline/communication/stream.py",
        "pipeline/benchmark/ranks/worker.py",
        "benchmarks/gpu/marked.py",
    )
    return Part("tests", "every test marked gpu or multigpu", 1, WANTED, code, read, _run)


def test_files() -> list[Path]:
    """Files of tests/ with a test for GPUs."""
    return [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARK.search(path.read_text("utf-8"))]


def _run(part: Part, place: Place, settings: Settings, folder: Path) -> Answer:
    if util.find_spec("pytest") is None:
        return f"pytest is missing; {sys.executable} -m pip install pytest"
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    names = map(str, test_files())
    command = [sys.executable, "-m", "pytest", *names, "-m", "gpu or multigpu", "-q", "-p", "no:cacheprovider"]
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # plugins may need what is not here
    ended = subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, env=alone, check=False)
    cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    if not cases:
        raise RunError(f"pytest ended with {ended.returncode} and ran no test")
    outcomes: Counter[str] = Counter()
    notes = []
    for case in cases:
        outcome = next((name for name in OUTCOMES if case.find(name) is not None), "passed")
        outcomes[outcome] += 1
        if outcome != "passed":
            told = case.find(outcome)
            why = "" if told is None else (told.get("message") or "").partition("\n")[0][:200]
            notes.append(f"{outcome}: {case.get('classname')}.{case.get('name')}: {why}")
    if ended.returncode or outcomes["failure"] + outcomes["error"]:
        counted = ", ".join(f"{name}: {outcomes[name]}" for name in ("passed", *OUTCOMES))
        raise RunError("\n".join([f"pytest ended with {ended.returncode}; {counted}; no answer is kept", *notes]))
    return Found([part.figure(name, outcomes[name]) for name in ("passed", "skipped")], notes, {})
