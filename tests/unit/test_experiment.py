"""When work counts as done: the same settings and code, from the same tokens and the same model. And where it lies."""

import json
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline import files
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.config.execution import PathsConfig
from pipeline.errors import ConfigError
from pipeline.experiment import work as works
from pipeline.experiment.closure import ROOT, closure, digests
from pipeline.experiment.experiment import load
from pipeline.experiment.plan import make_plan
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.models import build_model
from pipeline.models.checkpoint import load_model, save_model

FOLDERS = ("data", "trained", "runs", "engines", "results", "report")


@cache
def composed(*overrides: str) -> Config:
    return compose(["model=demo_standard", *overrides])


def compose_in(folder: Path, *overrides: str) -> Config:
    paths = PathsConfig.model_validate({name: f"{folder}/{name}" for name in FOLDERS})
    return composed(*overrides).model_copy(update={"paths": paths})


def work_in(folder: Path, *overrides: str, stage: str = "evaluate_perplexity") -> Work:
    return Work(BY_NAME[stage], compose_in(folder, *overrides))


def make_inputs(folder: Path, sha256: str = "aa", seed: int = 1) -> None:
    """Tokens and a trained model, with what they say of themselves."""
    work = work_in(folder)
    made_by = {stage: work_in(folder, stage=stage).fingerprint for stage in ("prepare_data", "train")}
    files.write_json(
        work.path("data") / "manifest.json",
        {
            "shards": [{"sha256": sha256}],
            "tokenizer": {"sha256": "bb"},
            "provenance": {"config_fingerprint": made_by["prepare_data"], "created_utc": "at some time"},
        },
    )
    save_model(
        work.path("trained"),
        build_model(work.config.model, seed=seed),
        {"tokenizer_sha256": "bb", "provenance": {"config_fingerprint": made_by["train"]}},
    )


@pytest.fixture
def finished(tmp_path):
    """A folder with a perplexity that is done."""
    make_inputs(tmp_path)
    assert work_in(tmp_path).state().name == "missing"
    work = work_in(tmp_path)
    work.begin()
    work.write({"loss_nats": 1.0})
    assert work_in(tmp_path).is_done()
    return tmp_path


@pytest.mark.parametrize(
    "change", ["evaluation.random_windows=3", "training.seed=2", "data.val_fraction=0.5", "model.n_layer=2"]
)
def test_other_settings_are_other_work_in_another_file(finished, change):
    other = work_in(finished, change)
    assert other.state().name == "missing"
    assert other.result != work_in(finished).result and "~" in str(other.result)


def test_an_edited_config_file_leaves_the_name_and_is_stale(finished, monkeypatch):
    edited = "evaluation.random_windows=3"
    shipped = vars(composed(edited))
    monkeypatch.setattr("pipeline.experiment.variant._shipped", lambda group, name: shipped[group].identity())
    monkeypatch.setattr("pipeline.experiment.variant.chosen", lambda scale, model, group: shipped[group].identity())
    state = work_in(finished, edited).state()
    assert str(state) == "stale (settings changed: evaluation.random_windows)"


def test_settings_that_a_stage_does_not_read_change_nothing(finished):
    for other in ("evaluation=superglue_0shot", "evaluation.n_shot=7", "engine.dtype=float32", "cluster=local_cpu_2"):
        assert work_in(finished, other).is_done(), other


def test_new_tokens_leave_nothing_done(finished):
    make_inputs(finished, sha256="cc")
    state = work_in(finished).state()
    assert state.name == "stale" and state.why == f"input changed: {finished}/data/demo"


def test_retrained_weights_make_the_perplexity_stale(finished):
    config = work_in(finished).path("trained") / "config.json"
    before = json.loads(config.read_text())
    make_inputs(finished, seed=2)
    after = json.loads(config.read_text())
    assert {key for key in before if before[key] != after[key]} == {"weights"}  # nothing else tells them apart
    assert work_in(finished).state().why == f"input changed: {finished}/trained/demo/demo_standard"
    make_inputs(finished, seed=1)
    assert work_in(finished).is_done()


def test_weights_that_are_not_those_stated_are_noticed_by_their_size(finished):
    weights = work_in(finished).path("trained") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert work_in(finished).state().name == "stale"


def test_weights_altered_at_the_same_size_are_noticed_and_a_copy_is_not(finished):
    trained = work_in(finished).path("trained")
    weights = trained / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-64] + bytes(64))
    assert work_in(finished).state().why == f"input changed: {trained}"
    weights.write_bytes(content)
    assert work_in(finished).is_done()
    copy = trained.with_name("copy")
    shutil.copytree(trained, copy, copy_function=shutil.copyfile)  # other times
    shutil.rmtree(trained)
    copy.rename(trained)
    assert work_in(finished).is_done()


def test_the_same_tokens_written_again_change_nothing(finished):
    manifest = work_in(finished).path("data") / "manifest.json"
    body = json.loads(manifest.read_text())
    files.write_json(manifest, body | {"provenance": body["provenance"] | {"created_utc": "at another"}})
    assert work_in(finished).is_done()


def test_a_result_that_does_not_say_what_made_it_is_stale(finished):
    files.write_json(work_in(finished).result, {"loss_nats": 1.0})
    assert work_in(finished).state().name == "stale"
    work_in(finished).result.write_text("{")
    assert work_in(finished).state().name == "stale"


def test_a_result_changed_by_hand_is_stale(finished):
    path = work_in(finished).result
    files.write_json(path, files.read_json(path) | {"loss_nats": 0.5})
    assert str(work_in(finished).state()) == f"stale (output damaged: {path} was changed by hand)"


def test_a_trained_model_that_is_not_whole_is_trained_again(tmp_path):
    make_inputs(tmp_path)
    work = work_in(tmp_path, stage="train")
    work.write({"val_loss_nats": 4.0})
    files.write_text(work.path("curve"), "step\n")
    assert work_in(tmp_path, stage="train").is_done()
    for name in ("config.json", "model.safetensors"):
        path = work.path("trained") / name
        path.rename(tmp_path / name)
        assert str(work_in(tmp_path, stage="train").state()) == f"stale (output damaged: {path} is missing)"
        (tmp_path / name).rename(path)
        assert work_in(tmp_path, stage="train").is_done()
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    assert "another SHA-256" in work_in(tmp_path, stage="train").state().why


def test_an_engine_that_is_not_whole_or_of_another_version_is_made_again(tmp_path, monkeypatch):
    def engine() -> Work:
        return work_in(tmp_path, "engine=huggingface", "engine.weights=random", stage="build_engine")

    log = SimpleNamespace(log_metrics=lambda metrics: None, log_artifact=lambda path: None)
    engine().stage.script.run(engine(), log)
    assert engine().is_done()
    folder = engine().path("engine")
    (folder / "model.safetensors").rename(tmp_path / "away")
    assert str(engine().state()) == f"stale (output damaged: {folder}/model.safetensors is missing)"
    (tmp_path / "away").rename(folder / "model.safetensors")
    described = (folder / "engine.json").read_text()
    for key in ("version", "key"):
        files.write_json(folder / "engine.json", json.loads(described) | {key: "another"})
        assert "engine.json was changed by hand" in engine().state().why
    (folder / "engine.json").write_text(described)
    monkeypatch.setattr("pipeline.export.make.installed_version", lambda module: "99.0")
    state = engine().state()
    assert state.name == "stale" and state.why.startswith("built by transformers ") and "here is 99.0" in state.why


def test_an_input_of_other_settings_is_refused(finished):
    trained = work_in(finished).path("trained") / "config.json"
    body = json.loads(trained.read_text())
    files.write_json(trained, body | {"provenance": {"config_fingerprint": "0123456789ab"}})
    with pytest.raises(ConfigError, match=r"demo_standard was made with other settings.*python -m stages\.train"):
        work_in(finished).begin()


def copied(folder: Path) -> Path:
    for room in ("pipeline", "stages"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_changed_code_makes_what_it_runs_stale_and_comments_do_not(finished, tmp_path_factory, monkeypatch):
    root = copied(tmp_path_factory.mktemp("tree"))
    monkeypatch.setattr(
        works.closure, "closure", lambda starts: closure([root / p.relative_to(ROOT) for p in starts], root)
    )
    monkeypatch.setattr(works.closure, "digests", lambda paths: digests(paths, root))
    layers = root / "pipeline/models/layers.py"
    text = layers.read_text()
    layers.write_text("# a remark\n\n" + text.replace('"""', '"""Said otherwise. ', 1))
    assert work_in(finished).is_done()
    layers.write_text(text + "\nCHANGED = 1\n")
    assert str(work_in(finished).state()) == "stale (code changed in pipeline/models)"
    layers.write_text(text)
    (root / "pipeline/report/page.html").write_text("other")
    (root / "pipeline/models/architectures/newcomer.py").write_text("ANOTHER = 1\n")
    assert work_in(finished).is_done()


def test_the_code_of_a_stage_is_what_it_runs():
    rooms = {name: set(digests(closure([ROOT / f"stages/{name}.py"]))) for name in BY_NAME}
    assert "pipeline/training" in rooms["train"] and "pipeline/results" in rooms["train"]
    for name, files_of in rooms.items():
        assert not {"pipeline/experiment", "pipeline/tracking.py", "stages/entry.py"} & files_of, name
    for name in ("prepare_data", "train", "evaluate_perplexity"):
        assert not {"pipeline/benchmark", "pipeline/export", "pipeline/report"} & rooms[name], name
    settings = {path.name for path in closure([ROOT / "stages/train.py"]) if path.parent.name == "config"}
    assert settings == {"model.py", "training.py", "execution.py", "data.py", "group.py"}
    processes = closure([ROOT / "stages/benchmark_ttft.py"])
    assert {ROOT / "pipeline/benchmark/ranks/rank.py", ROOT / "pipeline/benchmark/built/rank.py"} <= processes
    assert ROOT / "pipeline/evaluation/superglue/shipped/CB/val.jsonl" in closure(
        [ROOT / "stages/evaluate_superglue.py"]
    )


@pytest.mark.parametrize(
    ("stage", "overrides", "name"),
    [
        ("project_ttft", ["benchmark=ttft_paper"], "results/demo/projection-a100_40gb_nvswitch-ttft_paper.json"),
        ("project_ttft", ["benchmark=ttft_paper", "hardware.link_bandwidth=3.2e10"], "projection-a100_40gb_nvswitch~"),
        ("project_ttft", ["benchmark=ttft_paper", "benchmark.tp_sizes=[8]"], "nvswitch-ttft_paper~"),
        ("benchmark_ttft", ["link=sweep"], "results/demo/ttft-ttft_demo-sweep.json"),
        ("benchmark_ttft", ["cluster.device=cuda"], "ttft-ttft_demo~"),
        ("benchmark_ttft", ["benchmark=ttft_one_rank", "hardware.link_bandwidth=1e9"], "ttft-ttft_one_rank~"),
        ("benchmark_ttft", ["hardware.link_bandwidth=1e9"], "results/demo/ttft-ttft_demo.json"),  # reads no hardware
        ("project_ttft", ["benchmark.trace=false"], "projection-a100_40gb_nvswitch-ttft_demo.json"),  # reads none
        ("benchmark_ttft", ["benchmark=ttft_one_rank", "link=sweep"], "results/demo/ttft-ttft_one_rank.json"),
        ("benchmark_ttft", ["benchmark=ttft_engines", "engine.mode=whole"], "results/demo/ttft-ttft_engines.json"),
        ("train", [], "results/demo/demo_standard/training.json"),
        ("train", ["training.steps=200"], "results/demo/demo_standard~"),
        ("build_engine", ["engine.tp_size=2"], "engines/demo_standard-tp2-tensorrt/engine.json"),
        ("build_engine", ["engine.mode=segmented"], "engines/demo_standard-tp4-tensorrt~"),
        ("build_engine", ["training.steps=200"], "engines/demo_standard~"),
        ("evaluate_superglue", ["evaluation=superglue_0shot"], "demo_standard/superglue_0shot.json"),
        ("evaluate_superglue", ["evaluation.limit=5"], "demo_standard/superglue_3shot~"),
        ("prepare_data", ["data.name=mine", "data.max_bytes=10"], "data/mine~"),
        ("prepare_data", ["data.max_bytes=10"], "data/demo~"),
    ],
)
def test_overrides_that_change_a_result_change_its_files_name(stage, overrides, name):
    work = Work(BY_NAME[stage], compose(["model=demo_standard", *overrides]))
    assert name in str(work.result)
    assert ("~" in name) == ("~" in str(work.result))


def test_one_name_for_the_same_overrides_of_every_model():
    overrides = ["training.steps=200", "model.n_layer=2"]
    names = [
        files.VARIANT
        + Work(BY_NAME["train"], compose([f"model={model}", *overrides])).path("trained").name.split("~")[1]
        for model in ("demo_standard", "demo_parallel", "demo_kraken_4way")
    ]
    assert len(set(names)) == 1


def test_a_missing_model_is_named_with_the_variants_that_are_there(tmp_path):
    make_inputs(tmp_path)
    (tmp_path / "trained/demo/demo_standard").rename(tmp_path / "trained/demo/demo_standard~123456")
    work = work_in(tmp_path)
    with pytest.raises(Exception, match=r"train it first.*model=demo_standard with.*demo_standard~123456"):
        load_model(work.path("trained"))
    (fault,) = make_plan(load_one(work)).faults
    assert "there are: demo_standard~123456" in fault and "python -m stages.train model=demo_standard" in fault


def load_one(work: Work):
    from pipeline.experiment.experiment import Experiment

    return Experiment((work.composed,), (work.stage,))


def test_an_experiment_projects_the_whole_grid_whatever_it_times():
    work = {item.name: item for item in load(["+experiment=kraken_tp2"]).work()}
    assert work["benchmark_ttft"].config.benchmark.name == "ttft_demo"
    projected = work["project_ttft"]
    assert (projected.config.benchmark.name, projected.config.benchmark.tp_sizes) == ("ttft_paper", [4, 8])
    assert projected.result.name == "projection-a100_40gb_nvswitch-ttft_paper.json"
    chosen = load(["+experiment=kraken_tp2", "benchmark=ttft_cpu"]).work()
    assert [item.config.benchmark.name for item in chosen if item.stage.name == "project_ttft"] == ["ttft_cpu"]


def test_an_experiment_and_a_stage_of_other_settings_write_different_files():
    alone = Work(BY_NAME["benchmark_ttft"], compose([])).result
    results = {}
    for name in ("kraken_tp2", "kraken_tp4"):  # the first has numbers of ranks of its own
        results[name] = {item.name: item.result for item in load([f"+experiment={name}"]).work()}["benchmark_ttft"]
    assert results["kraken_tp2"] != alone == results["kraken_tp4"]


def test_what_an_optional_stage_lacks_keeps_nothing_from_running(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.export.make.missing", lambda engine: ["no such module"])
    folders = [f"paths.{name}={tmp_path}/{name}" for name in FOLDERS]
    plan = make_plan(load(["+experiment=kraken_tp4", *folders]))
    assert plan.faults == [] and plan.left_out == ["build_engine: no such module"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_each_stage_says_what_this_machine_lacks_for_it(tmp_path):
    folders = [f"paths.{name}={tmp_path}/{name}" for name in FOLDERS]
    faults = make_plan(load(["+experiment=kraken_tp4", "scale=paper", *folders])).faults
    text = "\n".join(faults)
    for part in (
        "train: cluster.num_workers=8: the workers need 8 GPUs",
        "benchmark_ttft: benchmark.tp_sizes=4: 4 CUDA",
    ):
        assert part in text
    assert not list(tmp_path.iterdir())
