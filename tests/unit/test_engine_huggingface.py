"""Folders for transformers: loaded by transformers' own code, with the logits of the pipeline's model."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.data.tokenizer import Tokenizer
from pipeline.errors import ConfigError
from pipeline.export.huggingface import export as huggingface
from pipeline.export.weights import TrainedSource
from tests.unit.engine_models import config_of, lively, save, spec_of, tokens


def export(tmp_path, model):
    trained = save(tmp_path / "trained", model)
    folder = tmp_path / "export"
    folder.mkdir()
    huggingface.export(spec_of(model.config, 1, "huggingface"), TrainedSource(trained, model.config), folder)
    return folder


@pytest.mark.parametrize("bias", [False, True])
def test_standard_is_a_plain_gpt2(tmp_path, bias):
    model = lively(config_of("standard", bias=bias))
    theirs = AutoModelForCausalLM.from_pretrained(export(tmp_path, model))
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    with torch.no_grad():
        assert (theirs(tokens()).logits - model(tokens())).abs().max() < 1e-4


def test_the_split_schedule_is_the_same_gpt2(tmp_path):
    model = lively(config_of("standard_split"))
    theirs = AutoModelForCausalLM.from_pretrained(export(tmp_path, model))
    with torch.no_grad():
        assert (theirs(tokens()).logits - model(tokens())).abs().max() < 1e-4


def test_an_architecture_without_a_forward_there_is_refused_by_name():
    spec = spec_of(config_of("standard"), 1, "huggingface")
    unknown = replace(spec, model=spec.model.model_copy(update={"architecture": "toy"}))
    with pytest.raises(ConfigError, match=r"architecture=toy: engine=huggingface exports standard, .*desync"):
        huggingface.HuggingFaceMaker(unknown)


def test_what_is_declared_is_what_the_modeling_file_has():
    source = Path(huggingface.__file__).with_name("modeling.py").read_text()
    (model,) = (n for n in ast.parse(source).body if getattr(n, "name", "") == "KrakenForCausalLM")
    forwards = {n.name[1:] for n in model.body if isinstance(n, ast.FunctionDef) and n.name.startswith("_")}
    assert forwards - {"init_weights", "layers", "_init__"} == set(huggingface.OWN_CODE)


@pytest.mark.parametrize("architecture", huggingface.OWN_CODE)
def test_others_bring_their_code(tmp_path, architecture):
    model = lively(config_of(architecture))
    folder = export(tmp_path, model)
    theirs = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        expected = model(tokens())
        assert (theirs(tokens()).logits - expected).abs().max() < 1e-4
        padded = torch.cat([torch.zeros(2, 3, dtype=torch.long), tokens()], dim=1)
        mask = torch.cat([torch.zeros(2, 3, dtype=torch.long), torch.ones_like(tokens())], dim=1)
        shifted = theirs(padded, attention_mask=mask).logits[:, 3:]
        assert (shifted - expected).abs().max() < 1e-4  # left padding changes nothing
    with pytest.raises(ValueError, match="at most 64"):
        theirs(torch.zeros(1, 65, dtype=torch.long))


def test_the_tokenizer_comes_along(tmp_path):
    model = lively(config_of("kraken"))
    trained = save(tmp_path / "trained", model)
    tokenizer = Tokenizer.train(["The kraken has many ways of its own. " * 20], 270)
    tokenizer.save(trained / "tokenizer.json")
    folder = tmp_path / "export"
    folder.mkdir()
    huggingface.export(spec_of(model.config, 1, "huggingface"), TrainedSource(trained, model.config), folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    text = "many ways of a kraken"
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.eos_token_id == tokenizer.eot_token


def test_one_rank_only():
    with pytest.raises(ConfigError, match="so 1"):
        huggingface.HuggingFaceMaker(spec_of(config_of("standard"), 2, "huggingface"))
