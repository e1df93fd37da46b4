"""Small models with real tokenizers for the tests of task scoring."""

from pathlib import Path

import torch

from pipeline.config import ModelConfig
from pipeline.data import Tokenizer
from pipeline.data.gpt2 import load_gpt2
from pipeline.evaluation.superglue.data import SHIPPED
from pipeline.models import Transformer, build_model
from pipeline.models.checkpoint import save_model

GPT2_VOCABULARY = Path(__file__).resolve().parents[3] / "shared" / "gpt2"
SUPERGLUE = Path(__file__).resolve().parents[3] / "shared" / "superglue"


def tiny_gpt2(seed: int = 3, block_size: int = 256, vocab_size: int = 50257) -> Transformer:
    """A GPT-2 shape with random weights large enough that choices differ clearly, biases included."""
    config = ModelConfig(
        name="gpt2",
        architecture="standard",
        n_layer=2,
        n_head=4,
        n_embd=64,
        block_size=block_size,
        vocab_size=vocab_size,
        bias=True,
        init_std=0.2,
    )
    model = build_model(config, seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return model


def gpt2_tokenizer() -> Tokenizer:
    return load_gpt2(str(GPT2_VOCABULARY))


def shipped_tokenizer(vocab_size: int = 1024) -> Tokenizer:
    """A BPE trained on the shipped set's own text."""
    return Tokenizer.train((path.read_text(encoding="utf-8") for path in sorted(SHIPPED.rglob("*.jsonl"))), vocab_size)


def save_demo_model(trained: Path, name: str, seed: int) -> None:
    """A finished model folder as training leaves it: random weights, a tokenizer."""
    from pipeline.compose import model_config

    save_model(trained / "demo" / name, build_model(model_config(name), seed=seed))
    shipped_tokenizer().save(trained / "demo" / name / "tokenizer.json")
