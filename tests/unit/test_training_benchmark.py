"""The training benchmark on a tiny shape: rivals are the same function, and its result says what it needs to."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import training
from benchmarks.training_rivals import floor
from pipeline.models import build_model
from pipeline.training.loss import LossModule
from tests.unit.test_loss import Sizes

TINY = ("model.n_layer=2", "model.n_embd=16", "model.vocab_size=512", "data.tokenizer_vocab_size=512")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    shape = replace(training.SHAPES["demo"], changes={"": TINY}, rounds=6, architectures=("standard", "kraken"))
    monkeypatch.setattr(training, "SHAPES", {"demo": shape})
    return shape


def test_a_run_from_end_to_end(tmp_path, capsys):
    path = tmp_path / "folder/result.json"
    assert training.main(["--no-memory", "--json", str(path)]) == 0
    standard, kraken = json.loads(path.read_text())["rows"]
    for row, first in ((standard, "transformers"), (kraken, "loop over ways")):
        rivals = list(training.RIVALS[row["architecture"]])
        assert rivals[0] == first
        assert row["rounds"] == 6 and row["tokens_per_step"] == 512
        assert set(row["loss_difference_nats"]) == set(row["over"]) == {*rivals}
        assert max(row["loss_difference_nats"].values()) < 1e-4  # after eight steps each: the same function and updates
        assert set(row["seconds"]) == {"ours", *rivals, "floor"}
        low, high = row["of_floor"]["interval_95"]
        assert low <= row["of_floor"]["ratio"] <= high
        assert row["tokens_per_s"] == pytest.approx(512 / row["seconds"]["ours"]["median"])
    printed = capsys.readouterr().out
    assert "x transformers" in printed and "x loop over ways" in printed and "load average" in printed
    assert {"commit", "device", "versions"} <= set(json.loads(path.read_text())["provenance"])


def test_rounds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        training.main(["--rounds", "0"])
    assert stopped.value.code == 2 and "at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["standard", "kraken", "desync"])
def test_the_floor_multiplies_as_often_as_a_step(tiny, architecture):
    config = tiny.config(architecture).model
    model = build_model(config, seed=1)
    alone = floor(model, 512, 2)
    with Sizes() as of_floor:
        alone()
    with Sizes() as of_step:
        LossModule(model)(torch.zeros(2, 257, dtype=torch.long)).backward()
    assert _products(of_floor) == _products(of_step)


def _products(sizes: Sizes) -> list[str]:
    """Products and attention kernels, biases left out of their names."""
    kinds = {"mm": "mm", "addmm": "mm", "bmm": "bmm", "baddbmm": "bmm"}
    names = [operation.split(".")[1] for operation in sizes.operations]
    return sorted(kinds.get(name, name) for name in names if name in kinds or "attention" in name)
