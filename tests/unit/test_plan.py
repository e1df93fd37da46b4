"""Plans: what a stage needs is what is counted, a cluster elsewhere is asked there, and unequal tokens are said."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pipeline.__main__
from pipeline.compose import compose
from pipeline.errors import ConfigError
from pipeline.experiment.experiment import load
from pipeline.experiment.plan import Plan, make_plan
from pipeline.experiment.plan_text import plan_text
from pipeline.models import count
from pipeline.training.plan import TrainingPlan
from pipeline.training.ray_launcher import cpus_per_worker, world_size

FOLDERS = ("data", "trained", "runs", "engines", "results", "report")


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One H100, as far as a plan asks."""
    size = 80 * 10**9
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (size, size))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=size))


def plan_of(folder: Path, *overrides: str) -> Plan:
    return make_plan(load([*overrides, *(f"paths.{name}={folder}/{name}" for name in FOLDERS)]))


def of_gpus(faults: list[str]) -> list[str]:
    return [fault for fault in faults if "GPU" in fault]


@pytest.mark.parametrize("experiment", ["kraken_tp4", "neighbours"])
def test_one_gpu_is_enough_for_the_scale_of_one_gpu(one_gpu: None, tmp_path: Path, experiment: str) -> None:
    plan = plan_of(tmp_path, f"+experiment={experiment}", "scale=small_gpu")
    assert of_gpus(plan.faults) == []
    assert all(fault.startswith("prepare_data: ") for fault in plan.faults)  # no network in tests


def test_without_a_gpu_no_stage_of_that_scale_asks_for_more_than_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    faults = of_gpus(plan_of(tmp_path, "+experiment=kraken_tp4", "scale=small_gpu").faults)
    assert [fault.split(":")[0] for fault in faults] == [
        *("train", "evaluate_perplexity", "evaluate_superglue", "benchmark_ttft")
    ]
    assert all(any(part in fault for part in ("need 1 GPU", "1 CUDA GPU", "no CUDA GPU")) for fault in faults), faults


def test_the_workers_of_a_ray_cluster_are_not_counted_here(one_gpu: None, tmp_path: Path) -> None:
    overrides = ("+experiment=kraken_tp4", "scale=paper", "cluster.num_workers=16", "cluster.micro_batch_size=15")
    assert any(
        "train: cluster.num_workers=16: the workers need 16 GPUs" in one for one in plan_of(tmp_path, *overrides).faults
    )
    elsewhere = plan_of(tmp_path, *overrides, "cluster.ray_address=auto")
    assert not [fault for fault in elsewhere.faults if fault.startswith(("train", "evaluate"))]


def test_models_that_see_other_numbers_of_tokens_are_named_in_one_line(one_gpu: None, tmp_path: Path) -> None:
    models = "experiment.models.paper=[standard_355m,parallel_355m,kraken_355m_4way]"
    experiment = load(["+experiment=table1", "scale=paper", models, f"paths.data={tmp_path}"])
    plan = make_plan(experiment)
    (note,) = plan.notes
    assert note == (
        "train: these models do not see the same number of training tokens: "
        "147.5B for standard_355m and parallel_355m, 157.3B for kraken_355m_4way"
    )
    assert note in plan_text(experiment, plan)


def test_a_run_says_so_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"paths.{name}={tmp_path}/{name}" for name in FOLDERS]
    overrides = ["+experiment=table1", "experiment.models.demo=[demo_standard,demo_parallel]", *folders]
    experiment = load(overrides)
    batch = experiment.configs[1].training.model_copy(update={"global_batch_size": 8})
    other = experiment.configs[1].model_copy(update={"training": batch})
    monkeypatch.setattr("pipeline.experiment.plan._input_faults", lambda experiment: [])
    pipeline.__main__._check(replace(experiment, configs=(experiment.configs[0], other)))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "512,000 for demo_standard, 1,024,000 for demo_parallel" in said


def test_the_same_tokens_need_no_line(one_gpu: None, tmp_path: Path) -> None:
    assert plan_of(tmp_path, "+experiment=kraken_tp4", "scale=paper").notes == []


PAPER = ("scale=paper", "model=kraken_124m_4way")


def test_ranks_are_workers_times_tensor_parallel_ranks(one_gpu: None, tmp_path: Path) -> None:
    config = compose([*PAPER, "cluster=gpu_node_tp4"])
    assert world_size(config.cluster) == 8 and TrainingPlan.of(config).row()[4] == "2 × 4"
    overrides = ("+experiment=kraken_tp4", "scale=paper", "cluster=gpu_node_tp4")
    lacks = [fault for fault in plan_of(tmp_path, *overrides).faults if fault.startswith("train")]
    assert (
        "train: cluster.num_workers=2 cluster.tp_size=4: the workers need 8 GPUs, this machine has 1; "
        "lower cluster.num_workers or cluster.tp_size, or set cluster=local_cpu"
    ) in lacks
    cores = compose(["cluster.tp_size=2", "cluster.num_workers=1"]).cluster
    assert cpus_per_worker(cores) == pytest.approx(cpus_per_worker(compose(["cluster=local_cpu"]).cluster) / 2)


def test_a_rank_holds_its_part_of_the_state() -> None:
    def memory(*overrides: str) -> int:
        return TrainingPlan.of(compose([*PAPER, *overrides])).memory_bytes_per_rank

    whole = memory("cluster=gpu_node")
    state = 16 * count.parameters(compose([*PAPER]).model)  # weights, gradients, two moments in float32
    assert memory("cluster=gpu_node", "cluster.fsdp=true") == pytest.approx(whole - state * 7 / 8)
    assert whole / 4 < memory("cluster=gpu_node_tp4") < whole / 2  # embeddings are on every rank


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("cluster.tp_size=3", "cluster.tp_size=3: must divide the 4 ways of kraken_124m_4way; 1, 2, 4 would be"),
        ("cluster.fsdp=true", "cluster.fsdp=true: shards over data-parallel workers"),
    ],
)
def test_ranks_that_cannot_share_a_model_are_one_fault(override: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        compose([*PAPER, "cluster=one_gpu", override])
