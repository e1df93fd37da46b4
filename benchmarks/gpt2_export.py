"""Our standard model with biases as transformers' own GPT-2, weight for weight: for benchmarks and parity tests."""

from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from pipeline.models import Transformer
from pipeline.models.huggingface import BLOCK_NAMES
from pipeline.models.placement import own_parts


def to_gpt2(model: Transformer) -> GPT2LMHeadModel:
    """The same function in transformers' code. Only a standard model with biases is a GPT-2."""
    config = model.config
    if config.architecture != "standard" or not config.bias or own_parts(config):
        raise ValueError(f"{config.name}: only a standard model with bias=true is a GPT-2")
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            layer_norm_epsilon=config.layer_norm_eps,
            activation_function="gelu_new",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=config.vocab_size - 1,
            eos_token_id=config.vocab_size - 1,
        )
    )
    ours = dict(model.named_parameters())
    state = {
        "transformer.wte.weight": ours["wte.weight"],
        "transformer.wpe.weight": ours["wpe.weight"],
        "transformer.ln_f.weight": ours["ln_f.weight"][0],
        "transformer.ln_f.bias": ours["ln_f.bias"][0],
        "lm_head.weight": ours["wte.weight"],
    }
    for layer in range(config.n_layer):
        for name, mine in BLOCK_NAMES.items():
            for kind in ("weight", "bias"):  # Conv1D keeps (in, out), as we do
                state[f"transformer.h.{layer}.{name}.{kind}"] = ours[f"blocks.{layer}.{mine}.{kind}"][0]
    with torch.no_grad():
        theirs.load_state_dict({name: tensor.detach() for name, tensor in state.items()})
    return theirs.eval()


def save_checkpoint(folder: Path, model: Transformer, tokenizer_dir: Path) -> None:
    """A Hugging Face GPT-2 folder: config.json, model.safetensors and a tokenizer from encoder.json and vocab.bpe."""
    to_gpt2(model).save_pretrained(folder)
    tokenizer = GPT2TokenizerFast(str(tokenizer_dir / "encoder.json"), str(tokenizer_dir / "vocab.bpe"))
    tokenizer.save_pretrained(folder)
