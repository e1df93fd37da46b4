"""Bad configurations: one clear message, all faults at once, before any work."""

import sys

import pytest

from pipeline.compose import compose
from pipeline.errors import ConfigError
from pipeline.experiment.experiment import load


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.n_hed=3"], ["model.n_hed=3", "did you mean model.n_head?"]),
        (["model=demo_kraken_4wy"], ["model=demo_kraken_4wy", "did you mean demo_kraken_4way?"]),
        (["scal=demo"], ["scal=demo", "did you mean scale?"]),
        (["model.n_head=6"], ["model.n_head=6", "divisible by n_ways=4", "8 would be"]),
        (["model=demo_standard", "model.n_head=3"], ["model.n_embd=128", "divisible by the 3 heads"]),
        (["training.learning_rate=fast"], ["training.learning_rate='fast'", "number"]),
        (["training.warmup_steps=1000000"], ["training.warmup_steps=1000000", "below training.steps"]),
        (["cluster.micro_batch_size=5"], ["cluster.micro_batch_size=5", "training.global_batch_size=4; 4 would"]),
        (["scale=paper", "cluster.num_workers=16"], ["micro_batch_size=20", "num_workers=16", "=480; 15 would"]),
        (["scale=paper", "cluster.num_workers=7"], ["cluster.num_workers=7", "global_batch_size=480; 6 would"]),
        (["=3"], ["=3: not of the form key=value"]),
        (["model=3"], ["model=3: no such model", "demo_standard"]),
        (["model=nope"], ["model=nope: no such model", "demo_standard"]),
        (["model.name="], ["model.name='': names files and folders", "letters"]),
        (["data.name=.."], ["data.name='..': names files and folders"]),
        (["benchmark.name=a/b"], ["benchmark.name='a/b': names files"]),
        (["evaluation.baseline=a/b"], ["evaluation.baseline='a/b': names files"]),
        (["paths.trained="], ["paths.trained='': must not be empty"]),
        (["tracking.uri="], ["tracking.uri='': must not be empty"]),
        (["model.name=null"], ["model.name=null: must be text"]),
        (["model.n_layer=true"], ["model.n_layer=true: must be a number"]),
        (["model.n_layer=1000000000"], ["model.n_layer=1000000000: must be less than or equal to 10000"]),
        (["training.steps=1000000000000000000000"], ["training.steps=1000000000000000000000: must be below 2^63"]),
        (["training.seed=18446744073709551616"], ["training.seed=18446744073709551616: must be below 2^63"]),
        (["training.seed=4294967296"], ["training.seed=4294967296: must be less than 4294967296"]),
        (["data.split_seed=-1"], ["data.split_seed=-1: must be greater than or equal to 0"]),
        (["training.seed=1,2"], ["training.seed=1,2: Ambiguous value"]),
        (["training.seed=[1"], ["training.seed=[1: not of the form"]),
        (["hardware.link_bandwidth=inf"], ["hardware.link_bandwidth=inf: must be a finite number"]),
        (["benchmark.contexts=[]"], ["benchmark.contexts=[]: must not be empty"]),
        (["benchmark.batch_sizes=[]"], ["benchmark.batch_sizes=[]: must not be empty"]),
        (["benchmark.repeats_min=9", "benchmark.repeats_max=3"], ["benchmark.repeats_min=9", "above repeats_max=3"]),
        (["benchmark.warmup_min=9", "benchmark.warmup_max=3"], ["benchmark.warmup_min=9", "above warmup_max=3"]),
        (["hardware=a100"], ["hardware=a100: no such hardware; did you mean a100_40gb_"]),
        (["benchmark.tp_sizes=[]"], ["benchmark.tp_sizes=[]: must not be empty"]),
        (["benchmark.tp_sizes=[4,4]"], ["benchmark.tp_sizes=[4, 4]: must name each once"]),
        (["benchmark.architectures=[]"], ["benchmark.architectures=[]: must begin with standard"]),
        (["link.links=[0mbit]"], ["link.links=['0mbit']: must be loopback or a rate"]),
        (["data.source=abc"], ["data.source='abc': must be a list"]),
        (["model.recipe=3"], ["model.recipe=3: must be a mapping"]),
        (["model.n_layer.x=3"], ["model.n_layer.x=3: no such key"]),
        (["model.vocab_size=100"], ["model.vocab_size=100", "data.tokenizer_vocab_size=4096"]),
        (["engine.target=a100"], ["engine.target=a100", "sm80"]),
        (["model.n_head"], ["model.n_head", "key=value"]),
        (["model.architecture=krakn"], ["model.architecture=krakn", "did you mean kraken?", "parallel_track"]),
        (["model=demo_ladder", "model.n_ways=4"], ["model.n_ways=4", "one way"]),
        (["model=demo_kraken_4way", "model.bias=true"], ["model.bias=true", "no biases"]),
        (["cluster.evaluation_tp_size=3"], ["cluster.evaluation_tp_size=3", "divide the 4 ways", "1, 2, 4 would be"]),
    ],
)
def test_the_message_names_key_value_and_mend(overrides, parts):
    text = message(*overrides)
    for part in parts:
        assert part in text
    assert "Traceback" not in text and "pydantic" not in text


def test_all_faults_are_reported_at_once():
    text = message("model.vocab_size=100", "training.warmup_steps=1000000", "cluster.micro_batch_size=5")
    assert text.startswith("3 faults")


def test_types_are_reported_together():
    text = message("training.steps=-1", "model.n_layer=0", "data.val_fraction=2")
    assert "training.steps=-1" in text and "model.n_layer=0" in text and "data.val_fraction=2" in text


def test_a_shape_that_cannot_be_is_reported_beside_everything_else():
    of_types = message("model.n_head=6", "training.steps=-1")
    assert of_types.startswith("2 faults") and "model.n_head=6: must be divisible by n_ways=4" in of_types
    of_rules = message("model.n_head=6", "model.vocab_size=100", "training.warmup_steps=1000000")
    assert of_rules.startswith("3 faults") and "model.n_head=6" in of_rules
    assert message("model.architecture=krakn", "model.vocab_size=100").startswith("2 faults")


def test_what_does_not_fit_in_groups_that_are_not_read_is_no_fault():
    """Tokens of GPT-2's vocabulary can be made whatever the model that some other stage would train."""
    overrides = ["data=local", "training.warmup_steps=1000000"]
    assert compose(overrides, read={"data"}).data.tokenizer_vocab_size == 50257
    with pytest.raises(ConfigError, match=r"^2 faults"):
        compose(overrides, read={"model", "data", "training"})
    with pytest.raises(ConfigError, match="must be text"):
        compose(["data.text_field=3"], read={"data"})


def test_the_documented_command_for_ones_own_text_plans(tmp_path, monkeypatch, capsys):
    from stages import entry

    (tmp_path / "a.txt").write_text("text\n")
    command = [
        "prepare_data",
        "data=local",
        f"data.source=[{tmp_path}]",
        f"paths.data={tmp_path}/data",
        "tracking=none",
    ]
    monkeypatch.setattr(sys, "argv", [*command, "debug=dry_run"])
    from stages import prepare_data

    assert entry.launch(prepare_data.run, "") == 0, capsys.readouterr().err


@pytest.mark.parametrize("bad", ["n_ways=0", "n_layer=-1", "heads_per_way=x", "width=3"])
def test_a_budget_that_cannot_be_solved_for_is_one_line(bad):
    from stages import describe

    with pytest.raises(ConfigError, match=f"^{bad}: budget= takes budget, .* each a whole number above 0$"):
        describe.main(["budget=124000000", bad])


def test_describing_all_models_takes_nothing_else():
    from stages import describe

    with pytest.raises(ConfigError, match=r"^model=demo_ladder extra=1: all=true .* takes nothing else$"):
        describe.main(["all=true", "model=demo_ladder", "extra=1"])


def test_unknown_experiment():
    with pytest.raises(ConfigError, match=r"did you mean kraken_tp\d"):
        load(["+experiment=kraken_tp5"])


def test_an_experiment_keeps_its_own_models():
    with pytest.raises(ConfigError, match=r"experiment\.models"):
        load(["+experiment=kraken_tp4", "model=demo_standard"])


def test_an_unknown_model_in_an_experiment():
    with pytest.raises(ConfigError, match="no model demo_krakn"):
        load(["+experiment=kraken_tp4", "experiment.models.demo=[demo_krakn]"])


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.models=3", "experiment.models=3: must be a mapping"),
        (
            "experiment.models=[demo_standard]",
            "experiment.models=[demo_standard]: the config file has a value of another",
        ),
        ("experiment.models.demo=[3]", "experiment.models.demo.0=3: must be text"),
        ("experiment.models.demo=[]", "experiment.models.demo=[]: must not be empty"),
        ("experiment.models.demo=demo_standard", "experiment.models.demo='demo_standard': must be a list"),
        ("experiment.models.demo=[demo_ladder,demo_ladder]", "must name each once"),
        (
            "+experiment.models.dmo=[demo_ladder]",
            "experiment.models.dmo='dmo': must be 'demo', 'cpu', 'small_gpu' or 'paper'",
        ),
        ("experiment.name=", "experiment.name='': names files"),
        ("experiment.stages=[nope]", "experiment.stages=['nope']: no such stage"),
        ("experiment.stages=3", "experiment.stages=3: must be a list"),
    ],
)
def test_a_bad_experiment_is_one_clear_line(override, part):
    with pytest.raises(ConfigError) as caught:
        load(["+experiment=kraken_tp4", override])
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_global_batch_that_workers_share_is_never_to_be_changed():
    overrides = ["scale=paper", "cluster.num_workers=16", "cluster.ray_address=auto"]
    assert "global_batch_size=480; 15 would" in message(*overrides)
    assert compose([*overrides, "cluster.micro_batch_size=15"]).training.global_batch_size == 480


def test_fingerprints_follow_identity_not_execution():
    base = compose([])
    for same in (
        ["cluster.checkpoint_interval=7"],
        ["cluster=local_cpu_2"],
        ["tracking=none"],
        ["paths.runs=elsewhere"],
    ):
        assert compose(same).fingerprint("model", "data", "training") == base.fingerprint("model", "data", "training")
    for other in (["training.seed=1"], ["model=demo_standard"], ["data.val_fraction=0.02"]):
        assert compose(other).fingerprint("model", "data", "training") != base.fingerprint("model", "data", "training")
