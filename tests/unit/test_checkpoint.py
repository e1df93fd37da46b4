"""Finished models on disk: round trip, ranks read by slices, and every way to be wrong."""

import pytest
import torch

from pipeline.compose import model_config
from pipeline.errors import CheckpointError
from pipeline.export.weights import TrainedSource
from pipeline.models import Placement, build_model, shard_state
from pipeline.models.checkpoint import WEIGHTS, load_model, save_model

NAMES = [
    "demo_standard",
    "demo_parallel",
    "demo_kraken_4way",
    "demo_ladder",
    "demo_desync_4way",
    "demo_parallel_track_4way",
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_comes_back_whole_and_by_rank(tmp_path, name):
    config = model_config(name)
    model = build_model(config, seed=5)
    save_model(tmp_path, model, {"steps": 3})
    state = model.state_dict()
    for key, tensor in load_model(tmp_path, config).state_dict().items():
        assert torch.equal(tensor, state[key])
    for tp_size in (2, 4):
        for rank in range(tp_size):
            placement = Placement(rank, tp_size)
            expected = shard_state(state, config, placement)
            loaded = load_model(tmp_path, config, placement).state_dict()
            assert loaded.keys() == expected.keys()
            assert all(torch.equal(loaded[key], expected[key]) for key in expected), name


def test_a_schedule_loads_the_weights_of_the_model_it_schedules(tmp_path):
    standard = build_model(model_config("demo_standard"), seed=3)
    save_model(tmp_path, standard)
    loaded = load_model(tmp_path, standard.config.model_copy(update={"architecture": "standard_split"}))
    assert loaded.config.architecture == "standard_split"
    assert all(torch.equal(standard.state_dict()[name], tensor) for name, tensor in loaded.state_dict().items())


def test_row_parallel_biases_live_once():
    config = model_config("demo_standard").model_copy(update={"bias": True})
    model = build_model(config)
    torch.nn.init.normal_(model.blocks[0].attn.out.bias)
    state = model.state_dict()
    parts = [shard_state(state, config, Placement(rank, 4)) for rank in range(4)]
    name = "blocks.0.attn.out.bias"
    assert torch.equal(sum(part[name] for part in parts), state[name])


def test_another_models_checkpoint_is_refused(tmp_path):
    save_model(tmp_path, build_model(model_config("demo_standard")))
    with pytest.raises(CheckpointError, match=r"architecture=standard \(wanted kraken\)"):
        load_model(tmp_path, model_config("demo_kraken_4way"))


def test_a_truncated_file_is_refused(tmp_path):
    config = model_config("demo_standard")
    save_model(tmp_path, build_model(config))
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path, config)


def test_a_missing_model_says_how_to_train_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"python -m stages\.train model=demo_standard"):
        load_model(tmp_path / "demo_standard", model_config("demo_standard"))


def test_a_pickle_is_never_opened(tmp_path):
    config = model_config("demo_standard")
    save_model(tmp_path, build_model(config))
    torch.save(build_model(config).state_dict(), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(tmp_path, config)


def test_altered_weights_of_the_same_size_are_refused(tmp_path):
    config = model_config("demo_standard")
    save_model(tmp_path, build_model(config))
    data = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(data[:-4096] + bytes(4096))
    for placement in (Placement(0, 1), Placement(0, 2)):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: its SHA-256 is [0-9a-f]{12}"):
            load_model(tmp_path, config, placement)
    with pytest.raises(CheckpointError, match="is damaged"):
        TrainedSource(tmp_path, config).identity()
