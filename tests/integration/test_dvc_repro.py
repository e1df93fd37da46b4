"""DVC for real: a clone of the project, small settings, the stages up to perplexity, then nothing left to do."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODELS = ["demo_standard", "demo_kraken_2way"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def edit(path: Path, **changes: object) -> None:
    body = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**body, **changes}))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The working tree's files in a git and DVC repository of their own, cut down to seconds of work."""
    folder = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    edit(folder / "params.yaml", models=MODELS)
    edit(folder / "conf/data/demo.yaml", source=["numpy"], max_bytes=500_000, tokenizer_vocab_size=512)
    edit(
        folder / "conf/training/demo.yaml",
        steps=4,
        warmup_steps=1,
        global_batch_size=8,
        eval_interval=4,
        eval_windows=4,
    )
    edit(folder / "conf/cluster/local_cpu.yaml", micro_batch_size=8)
    for name in MODELS:
        edit(folder / f"conf/model/{name}.yaml", n_layer=2, block_size=64)
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
        subprocess.run(command, cwd=folder, check=True, env=environment())
    return folder


def environment() -> dict[str, str]:
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **identity, "PATH": path, "HF_HUB_OFFLINE": "1"}


def dvc(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=project, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_repro_then_up_to_date_then_one_edit(project):
    dvc(project, "repro", "evaluate_perplexity")
    assert (project / "trained/demo/demo_kraken_2way/model.safetensors").exists()

    started = time.monotonic()
    again = dvc(project, "repro", "evaluate_perplexity")
    assert "up to date" in again
    assert time.monotonic() - started < 10

    assert "loss_nats" in dvc(project, "metrics", "show", "--md")
    dvc(project, "plots", "show", "--out", "plots_html")
    assert (project / "plots_html/index.html").exists()

    edit(project / "conf/cluster/local_cpu.yaml", checkpoint_interval=7)  # execution: reruns nothing
    assert "up to date" in dvc(project, "repro", "evaluate_perplexity", "--dry")
    model = project / "conf/model/demo_kraken_2way.yaml"
    before = model.read_text()
    edit(model, init_std=0.03)  # identity: reruns this model only
    planned = dvc(project, "repro", "evaluate_perplexity", "--dry")
    assert "train@demo_kraken_2way" in planned and "Running stage 'train@demo_standard'" not in planned
    model.write_text(before)
    assert "Running stage" not in dvc(project, "repro", "evaluate_perplexity", "--dry")
