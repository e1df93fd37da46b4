"""Bad configurations: one clear message, all faults at once, before any work."""

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
        (["cluster.micro_batch_size=5"], ["training.global_batch_size", "divisible by cluster.micro_batch_size"]),
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


def test_unknown_experiment():
    with pytest.raises(ConfigError, match=r"did you mean kraken_tp\d"):
        load(["+experiment=kraken_tp5"])


def test_an_experiment_keeps_its_own_models():
    with pytest.raises(ConfigError, match=r"experiment\.models"):
        load(["+experiment=kraken_tp4", "model=demo_standard"])


def test_an_unknown_model_in_an_experiment():
    with pytest.raises(ConfigError, match="no model demo_krakn"):
        load(["+experiment=kraken_tp4", "experiment.models.demo=[demo_krakn]"])


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
