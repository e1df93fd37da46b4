"""DVC for real: a clone of the project with settings of seconds, every stage, and what an edit makes stale there and
in `python -m pipeline`."""

import json
import os
import re
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
    """The working tree's files in a git and DVC repository of their own, cut down to seconds of work, and done."""
    folder = tmp_path_factory.mktemp("repository")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    edit(folder / "params.yaml", models=MODELS, engine="checkpoint", tp_size=2)
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
    edit(folder / "conf/evaluation/superglue_3shot.yaml", tasks=["cb"], limit=2, bootstrap_iters=20)
    composed = folder / "conf/config.yaml"
    composed.write_text(composed.read_text().replace("tracking: mlflow", "tracking: none"))
    edit(folder / "conf/model/demo_standard.yaml", n_layer=2, block_size=64)
    edit(folder / "conf/model/demo_kraken_2way.yaml", n_layer=2, block_size=64)
    quick = {"warmup_max": 2, "repeats_min": 2, "repeats_max": 2, "breakdown": False, "trace": False}
    edit(
        folder / "conf/benchmark/ttft_demo.yaml",
        architectures=["standard", "kraken"],
        shapes=[{"size": "demo", "models": {"standard": "demo_standard", "kraken": "demo_kraken_{tp_size}way"}}],
        derived={},
        contexts=[32],
        tp_sizes=[2],
        **quick,
    )
    for command in (["git", "init", "-q"], ["git", "add", "-A"], ["git", "commit", "-qm", "start"]):
        subprocess.run(command, cwd=folder, check=True, env=environment())
    dvc(folder, "repro")
    return folder


def environment() -> dict[str, str]:
    identity = {
        f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **identity, "PATH": path, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}


def run(project: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=project, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def dvc(project: Path, *words: str) -> str:
    return run(project, "dvc", *words)


PIPELINE = ["+experiment=kraken_tp2", f"experiment.models.demo=[{','.join(MODELS)}]", "engine=checkpoint"]


def states(project: Path, *overrides: str) -> dict[str, str]:
    """State of every piece of work as `python -m pipeline` sees it, by name; "missing" is not listed."""
    lines = run(project, "pipeline", *PIPELINE, *overrides, "debug=dry_run").splitlines()
    done = next((line.split(None, 1)[1] for line in lines if line.startswith("done ")), "")
    stale = dict(line.split(None, 1)[1].split(": ", 1) for line in lines if line.startswith("stale "))
    return {**dict.fromkeys(filter(None, done.split(", ")), "done"), **stale}


def changed(project: Path) -> set[str]:
    """Stages that DVC would run again because of their own deps and params."""
    status = dvc(project, "status").splitlines()
    return {line.rstrip(":") for line in status if line and not line.startswith((" ", "\t")) and line.endswith(":")}


def test_the_second_time_everything_is_up_to_date(project):
    started = time.monotonic()
    again = dvc(project, "repro")
    assert "up to date" in again and "Running stage" not in again
    assert time.monotonic() - started < 10
    assert "loss_nats" in dvc(project, "metrics", "show", "--md")
    dvc(project, "plots", "show", "--out", "plots_html")
    assert (project / "plots_html/index.html").exists()


def test_the_pipeline_knows_what_dvc_did(project):
    found = states(project)
    assert set(found.values()) == {"done"}
    assert len(found) == 4 * len(MODELS) + 2


@pytest.mark.parametrize(
    ("path", "changes", "in_dvc", "in_pipeline"),
    [
        ("conf/cluster/local_cpu.yaml", {"checkpoint_interval": 7}, {"benchmark_ttft"}, {}),
        (
            "conf/cluster/local_cpu.yaml",
            {"device": "cuda"},
            {"benchmark_ttft"},
            {"benchmark_ttft": "settings changed: cluster.device"},
        ),
        (
            "conf/model/demo_kraken_2way.yaml",
            {"init_std": 0.03},
            {"train@demo_kraken_2way", "evaluate_perplexity@demo_kraken_2way", "evaluate_superglue@demo_kraken_2way"}
            | {"build_engine@demo_kraken_2way", "benchmark_ttft", "project_ttft"},
            {
                **{
                    f"{stage} demo_kraken_2way": "settings changed: model"
                    for stage in ("train", "evaluate_perplexity", "evaluate_superglue", "build_engine")
                },
                "benchmark_ttft": "settings changed: models",
            },
        ),
        (
            "conf/engine/checkpoint.yaml",
            {"dtype": "float32"},
            {f"build_engine@{model}" for model in MODELS} | {"benchmark_ttft"},
            {f"build_engine {model}": "settings changed: engine" for model in MODELS},
        ),
    ],
    ids=["execution", "device", "one_model", "engine"],
)
def test_an_edited_setting_is_noticed_by_both(project, path, changes, in_dvc, in_pipeline):
    before = (project / path).read_text()
    edit(project / path, **changes)
    try:
        assert changed(project) == in_dvc
        if changes != {"device": "cuda"}:  # a dry run ends with 2 where no GPU is
            assert {name: state for name, state in states(project).items() if state != "done"} == in_pipeline
    finally:
        (project / path).write_text(before)
    assert not changed(project)


def test_more_layers_of_one_model_make_what_times_and_projects_it_stale(project):
    path = project / "conf/model/demo_standard.yaml"
    before = path.read_text()
    edit(path, n_layer=9)
    try:
        assert {"benchmark_ttft", "project_ttft", "train@demo_standard"} <= changed(project)
        assert states(project)["benchmark_ttft"] == "settings changed: models"
    finally:
        path.write_text(before)


STEP = re.compile(r"^step +\d+/", re.MULTILINE)  # a line of training


def test_an_edited_comment_does_nothing_twice(project):
    """DVC runs the stages again, and they keep tokens, weights, engines and timings."""
    names = ("data/demo/manifest.json", "engines/demo_standard-tp2-checkpoint/engine.json")
    kept = [project / name for name in (*names, "results/demo/ttft-ttft_demo.json")]  # each says when it was made
    before = [path.read_text() for path in kept]
    config = project / "trained/demo/demo_standard/config.json"
    weights = json.loads(config.read_text())["weights"]
    for name in ("pipeline/data/prepare.py", "pipeline/data/token_data.py", "pipeline/models/layers.py"):
        with (project / name).open("a") as file:
            file.write("\n# a remark\n")
    assert set(states(project).values()) == {"done"}
    ran = dvc(project, "repro", "build_engine@demo_standard", "benchmark_ttft")
    for stage in ("prepare_data", "train@demo_standard", "build_engine@demo_standard", "benchmark_ttft"):
        assert f"Running stage '{stage}'" in ran
    assert not STEP.search(ran)
    assert [path.read_text() for path in kept] == before
    assert json.loads(config.read_text())["weights"] == weights
    assert set(states(project).values()) == {"done"}


def test_changed_code_trains_anew_and_dvc_knows_what_the_pipeline_did(project):
    runs = {path.name for path in (project / "runs/demo").glob("demo_standard-*")}
    path = project / "pipeline/training/optimizer.py"
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    assert states(project)["train demo_standard"] == "code changed in pipeline/training"
    anew = run(project, "pipeline", *PIPELINE, "experiment.stages=[prepare_data,train,build_engine]")
    assert len(STEP.findall(anew)) >= len(MODELS)
    after = {path.name for path in (project / "runs/demo").glob("demo_standard-*")}
    assert runs < after
    assert {name.split("-")[1] for name in after} == {name.split("-")[1] for name in runs}  # the same settings

    engine = project / "engines/demo_standard-tp2-checkpoint/engine.json"
    before = engine.read_text()
    ran = dvc(project, "repro", "build_engine@demo_standard")
    assert "done before, kept" in ran and not STEP.search(ran)
    assert engine.read_text() == before
