"""Where things lie: what determines a file and is not in its name gives it another; and whose weights are read."""

import json
from pathlib import Path

import pytest

from pipeline import files
from pipeline.compose import compose, group_options
from pipeline.config import Config
from pipeline.errors import CheckpointError, ConfigError, PipelineError
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.places import model_name, place
from pipeline.experiment.plan import make_plan
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.models import build_model
from pipeline.models.checkpoint import save_model

FOLDERS = ("data", "trained", "runs", "engines", "results", "report")
MODEL = "model=demo_standard"
TRAINED = ("benchmark.weights=trained", "benchmark.tp_sizes=[2]")


def name_of(what: str, *overrides: str) -> str:
    (path,) = place(what, compose(list(overrides)))
    return str(path)


@pytest.mark.parametrize(
    ("what", "plain", "choice"),
    [
        ("trained", [MODEL], "training=small_gpu"),
        ("trained", [MODEL, "model.vocab_size=51200"], "data=openwebtext"),
        ("perplexity", [MODEL], "training=small_gpu"),
        ("tasks", [MODEL, "model.vocab_size=51200"], "data=openwebtext"),
        ("engine", [MODEL], "training=small_gpu"),
        ("timing", ["cluster.micro_batch_size=2"], "cluster=one_gpu"),
        ("timing", ["benchmark=ttft_one_rank"], "hardware=h100_sxm"),
        ("timing", ["benchmark=ttft_engines", "benchmark.engine=tensorrt_llm"], "engine.environment=docker"),
        ("timing", [*TRAINED], "training.seed=6"),
        ("trained", ["scale=small_gpu", "cluster.micro_batch_size=2"], "training=demo"),
        ("timing", ["scale=paper"], "cluster=local_cpu"),
    ],
)
def test_another_file_of_a_group_that_the_name_does_not_spell_is_another_name(
    what: str, plain: list[str], choice: str
) -> None:
    before, after = name_of(what, *plain), name_of(what, *plain, choice)
    assert before != after and files.plain_name(before) == files.plain_name(after) and "~" in after


def test_two_choices_are_two_names() -> None:
    one_rank = [name_of("timing", "benchmark=ttft_one_rank", f"hardware={name}") for name in group_options("hardware")]
    assert len(set(one_rank)) == len(one_rank)
    shapes = {name_of("trained", MODEL, "model.name=foo", f"model.n_layer={layers}") for layers in (2, 3)}
    assert len(shapes) == 2 and all("/foo~" in name for name in shapes)


@pytest.mark.parametrize("scale", group_options("scale"))
def test_what_the_scale_chooses_has_the_plain_name(scale: str) -> None:
    config = compose([f"scale={scale}"])
    for what in ("data", "trained", "tasks", "perplexity", "timing", "projection"):
        assert "~" not in str(*place(what, config)), what
    assert name_of("timing", f"scale={scale}").endswith(f"results/{scale}/ttft-{config.benchmark.name}.json")


def test_a_models_own_recipe_is_no_override():
    """At the paper's scale peak rate and batch are each model's own."""
    for model in ("kraken_124m_4way", "kraken_355m_4way", "kraken_760m_4way"):
        assert model_name(compose(["scale=paper", f"model={model}"])) == model
    assert (
        model_name(compose(["scale=paper", "model=kraken_355m_4way", "training.learning_rate=1e-3"]))
        != "kraken_355m_4way"
    )


def test_what_does_not_determine_a_result_leaves_its_name() -> None:
    assert name_of("timing", "hardware=h100_sxm") == name_of("timing")
    assert name_of("timing", "training=small_gpu") == name_of("timing")
    untrained = ("engine", MODEL, "engine.weights=random")
    assert name_of(*untrained, "training.seed=6") == name_of(*untrained)


def config_in(folder: Path, *overrides: str) -> Config:
    return compose([*overrides, *(f"paths.{name}={folder}/{name}" for name in FOLDERS)])


def train(folder: Path, *overrides: str) -> Path:
    work = Work(BY_NAME["train"], config_in(folder, *overrides))
    made_by = {"provenance": {"config_fingerprint": work.fingerprint}}
    save_model(work.path("trained"), build_model(work.composed.model), made_by)
    return work.path("trained")


def test_a_benchmark_of_trained_weights_names_every_model_that_is_not_trained(tmp_path: Path) -> None:
    overrides = [
        *TRAINED,
        "benchmark.architectures=[standard,standard_split,ladder,parallel_track]",
        "training.steps=6",
    ]
    overrides += ["training.warmup_steps=2", "tracking=none"]
    train(tmp_path, MODEL, *overrides)
    work = Work(BY_NAME["benchmark_ttft"], config_in(tmp_path, *overrides))
    with pytest.raises(CheckpointError) as caught:
        work.begin()
    _, *lines = str(caught.value).splitlines()
    commands = ["python -m stages.train model=demo_ladder"]
    commands += ["python -m stages.train model=demo_standard model.architecture=parallel_track"]
    assert len(lines) == 2
    for line, command in zip(lines, commands, strict=True):
        assert set(command.split()) <= set(line.split()), line
    planned = make_plan(Experiment((work.composed,), (work.stage,))).faults
    assert [fault.split(" is missing")[0] for fault in planned] == [
        line.removeprefix("  - ").split(" is missing")[0] for line in lines
    ]
    for line in lines:  # what the commands train is what the benchmark then finds
        words = line.split(" run python -m stages.train ")[1].removesuffix(" with the same overrides first").split()
        assert str(train(tmp_path, *words, *overrides)) == line.removeprefix("  - ").split(" is missing")[0]
    Work(BY_NAME["benchmark_ttft"], work.composed).begin()


def test_a_benchmark_refuses_a_model_that_was_trained_with_other_settings(tmp_path: Path) -> None:
    overrides = [*TRAINED, "benchmark.architectures=[standard,ladder]"]
    train(tmp_path, MODEL, *overrides)
    ladder = train(tmp_path, "model=demo_ladder", *overrides)
    work = Work(BY_NAME["benchmark_ttft"], config_in(tmp_path, *overrides))
    work.begin()
    body = json.loads((ladder / "config.json").read_text())
    files.write_json(ladder / "config.json", body | {"provenance": {"config_fingerprint": "0123456789ab"}})
    with pytest.raises(ConfigError, match=r"demo_ladder was made with other settings.*stages\.train"):
        Work(BY_NAME["benchmark_ttft"], work.composed).begin()


def test_each_model_of_a_grid_is_expected_as_its_own_recipe_trains_it() -> None:
    overrides = ["scale=paper", "model=standard_355m", *TRAINED, "benchmark.contexts=[8]"]
    shape = "benchmark.shapes=[{size: a, models: {standard: standard_124m}}]"
    timed = place("timed", compose([*overrides, shape, "benchmark.architectures=[standard]"]))
    assert [str(path) for path in timed] == [name_of("trained", "scale=paper", "model=standard_124m")]


def test_one_rank_alone_is_not_timed_with_trained_weights() -> None:
    work = Work(BY_NAME["benchmark_ttft"], compose(["benchmark=ttft_one_rank", "benchmark.weights=trained"]))
    with pytest.raises(ConfigError, match=r"benchmark\.weights=trained: one rank"):
        work.stage.script.check([work])


SPLIT = (MODEL, "model.architecture=standard_split")


@pytest.mark.parametrize("stage", ["build_engine", "evaluate_perplexity", "evaluate_superglue"])
def test_a_schedule_reads_the_weights_of_what_it_schedules_and_has_results_of_its_own(
    tmp_path: Path, stage: str
) -> None:
    trained = train(tmp_path, MODEL)
    work, other = (Work(BY_NAME[stage], config_in(tmp_path, *chosen)) for chosen in (SPLIT, [MODEL]))
    assert trained in work.paths(*work.stage.inputs)
    assert work.result != other.result
    work.begin()  # made with the settings that are expected


def test_a_schedule_is_not_trained(tmp_path: Path) -> None:
    work = Work(BY_NAME["train"], config_in(tmp_path, *SPLIT))
    for action in (lambda: work.stage.script.check([work]), lambda: work.stage.script.run(work, None)):
        with pytest.raises(
            PipelineError, match=r"standard_split: runs the weights of standard .*train the standard"
        ) as caught:
            action()
        assert "\n" not in str(caught.value)
