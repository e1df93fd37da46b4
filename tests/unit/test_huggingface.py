"""GPT-2 checkpoints in Hugging Face form against transformers' own GPT-2."""

import pytest
import torch

from pipeline.errors import CheckpointError
from pipeline.models.huggingface import load_huggingface

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A randomly initialised GPT-2, its biases and LayerNorms moved off their special values."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=3, n_head=4, n_embd=48, n_positions=64, vocab_size=211)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder, model


def test_logits_agree_with_transformers(checkpoint):
    folder, theirs = checkpoint
    tokens = torch.randint(0, 211, (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
        ours = load_huggingface(folder)(tokens)
    assert expected.std() > 0.5  # else agreement would say little
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_a_missing_tensor_is_named(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = checkpoint
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("transformer.h.1.mlp.c_fc.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.up\.bias"):
        load_huggingface(tmp_path)


def test_a_pickle_is_not_read(checkpoint, tmp_path):
    folder, model = checkpoint
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"no \.safetensors"):
        load_huggingface(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="llama"):
        load_huggingface(tmp_path)


def test_another_shape_is_refused(checkpoint):
    from pipeline.compose import model_config

    with pytest.raises(CheckpointError, match=r"n_layer=3 \(wanted 12\)"):
        load_huggingface(checkpoint[0], model_config("gpt2"))
