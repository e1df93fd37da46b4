"""The README's commands exist and compose."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.compose import compose
from pipeline.experiment.experiment import load
from pipeline.experiment.stages import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_SCRIPTS = {"stages.describe"}
PLACEHOLDER = re.compile(r"\[my/|\[folder\]|my_kraken|sandwich|<|…|MODEL|NAME")


def commands() -> list[tuple[str, str]]:
    """(document, command) of every indented or fenced line that starts a command of the project."""
    found = []
    for document in DOCUMENTS:
        for line in document.read_text().splitlines():
            text = re.split(r"\s+#|\s{3,}", line.strip().removeprefix("$ "))[0]  # what follows is a remark
            if re.match(r"(python -m (pipeline|stages)|make |dvc )", text):
                found.append((document.name, text.split(" ;")[0]))
    return found


def ids(value: object) -> str:
    return str(value)


@pytest.mark.parametrize(("document", "command"), commands(), ids=ids)
def test_the_command_is_real(document, command):
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    if words[0] == "dvc":
        assert words[1] in ("repro", "metrics", "plots", "exp", "status")
        return
    module, overrides = words[2], [word for word in words[3:] if "=" in word]
    if module == "pipeline":
        if "--help" in words or PLACEHOLDER.search(command):
            return
        load(overrides)
        return
    assert module in {stage.module for stage in BY_NAME.values()} | OTHER_SCRIPTS
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()
    if PLACEHOLDER.search(command) or any(word.startswith(("budget=", "all=")) for word in overrides):
        return
    if "n_hed" in command:  # the README's example of a mistake
        with pytest.raises(Exception, match=r"did you mean model\.n_head"):
            compose(overrides)
        return
    compose(overrides)


def test_the_readme_names_the_first_commands():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text and "make test" in text and "dvc repro" in text


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_help_is_quick_and_names_everything():
    done = subprocess.run([sys.executable, "-m", "pipeline", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    for word in ("kraken_tp4", "table3", "small_gpu", "benchmark_ttft"):
        assert word in done.stdout
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"], capture_output=True, text=True, cwd=ROOT
    ).stderr
    for heavy in ("torch", "mlflow", "hydra", "ray"):
        assert not re.search(rf"\| +{heavy}$", imported, re.M), heavy


@pytest.mark.parametrize("stage", [*BY_NAME, "describe"])
def test_every_stage_has_help(stage):
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f"python -m stages.{stage}" in done.stdout
