"""The calibration's plumbing on randomly initialised checkpoints in the Hugging Face layout."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.compose import compose
from pipeline.errors import CheckpointError, MissingRequirementError
from pipeline.evaluation.scoring.scorer import Scorer
from pipeline.evaluation.scoring.source import find_source
from pipeline.models import Placement
from tests.integration.superglue_models import GPT2_VOCABULARY, gpt2_tokenizer, tiny_gpt2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GPT2_VOCABULARY.is_dir(), reason="needs GPT-2's vocabulary in ../shared/gpt2"),
]

SHAPE = ["model.n_layer=2", "model.n_head=4", "model.n_embd=64", "model.block_size=256"]
NO_MODEL = Path("no/trained/model")
NAMES = {"gpt2": "gpt2", "gpt2_medium": "gpt2-medium", "gpt2_large": "gpt2-large"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from benchmarks.gpt2_export import save_checkpoint

    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(NAMES.values()):
        save_checkpoint(folder / name, tiny_gpt2(seed + 1), GPT2_VOCABULARY)
    return folder


def test_three_rows_beside_the_papers(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folders = [
        f"paths.{name}={tmp_path / name}" for name in ("results", "runs", "report", "trained", "data", "engines")
    ]
    more = [f"evaluation.checkpoint={checkpoints}", "evaluation.data_dir=null", "evaluation.limit=4", "tracking=none"]
    assert main(["+experiment=calibrate_superglue", *SHAPE, *folders, *more, "evaluation.bootstrap_iters=50"]) == 0
    shown = capsys.readouterr().out
    rows = {"gpt2": "GPT-2", "gpt2_medium": "GPT-2 Medium", "gpt2_large": "GPT-2 Large"}
    reference = compose([]).reference.superglue_3shot
    hashes = set()
    for model, row in rows.items():
        (path,) = (tmp_path / "results" / "demo").glob(f"{model}~*/superglue_3shot~*.json")
        body = json.loads(path.read_text())
        hashes.add(body["checkpoint_sha256"])
        assert body["published"]["row"] == row and not body["published"]["comparable"]
        for task, entry in body["published"]["tasks"].items():
            assert entry["published"] == reference[row][task]
            assert entry["flagged"] == (abs(entry["difference"]) > 2 * entry["standard_error"])
        assert f"beside {row} as published" in shown
    assert len(hashes) == 3
    assert "say nothing about the model" in shown


def test_neither_hub_nor_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folders = [
        f"paths.{name}={tmp_path / name}" for name in ("results", "runs", "report", "trained", "data", "engines")
    ]
    assert main(["+experiment=calibrate_superglue", *folders, "tracking=none"]) == 2
    error = capsys.readouterr().err
    for name in NAMES.values():
        assert f"hf download openai-community/{name} --local-dir checkpoints/{name}" in error
    assert "aps/super_glue" in error
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_checkpoint_is_loaded_whole_or_in_shards(checkpoints: Path) -> None:
    source = find_source(compose(["model=gpt2", *SHAPE, f"evaluation.checkpoint={checkpoints}"]), NO_MODEL)
    assert source.folder == checkpoints / "gpt2"
    whole, part = source.load(), source.load(Placement(1, 2))
    assert (part.blocks[0].mlp.up.weight == whole.blocks[0].mlp.up.weight[..., 128:]).all()
    assert Scorer(whole).block_size == 256


def test_tokenizer_json_or_vocab_and_merges(checkpoints: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoints / "gpt2", tmp_path / "gpt2")
    (tmp_path / "gpt2" / "tokenizer.json").unlink()
    shutil.copy(GPT2_VOCABULARY / "encoder.json", tmp_path / "gpt2" / "vocab.json")
    shutil.copy(GPT2_VOCABULARY / "vocab.bpe", tmp_path / "gpt2" / "merges.txt")
    text = "Hello world, naïve 日本 \n\n  x"
    for folder in (checkpoints, tmp_path):
        source = find_source(compose(["model=gpt2", *SHAPE, f"evaluation.checkpoint={folder}"]), NO_MODEL)
        assert source.tokenizer().encode(text) == gpt2_tokenizer().encode(text)


def test_wrong_checkpoints_are_refused(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"n_layer=2 \(wanted 12\)"):
        find_source(compose(["model=gpt2", f"evaluation.checkpoint={checkpoints / 'gpt2'}"]), NO_MODEL)
    (tmp_path / "gpt2").mkdir()
    with pytest.raises(MissingRequirementError, match="neither it nor"):
        find_source(compose(["model=gpt2", f"evaluation.checkpoint={tmp_path}"]), NO_MODEL)
    shutil.copy(checkpoints / "gpt2" / "config.json", tmp_path / "gpt2")
    with pytest.raises(CheckpointError, match="the weights"):
        find_source(compose(["model=gpt2", *SHAPE, f"evaluation.checkpoint={tmp_path}"]), NO_MODEL)
