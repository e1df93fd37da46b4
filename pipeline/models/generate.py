"""Continuing a text token by token, with a key-value cache."""

import torch
from torch import Tensor

from pipeline.communication import LOCAL, Communicator
from pipeline.models.transformer import Transformer


@torch.no_grad()
def generate(
    model: Transformer,
    prompt: Tensor,  # (B, T)
    new_tokens: int,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
    communicator: Communicator = LOCAL,
) -> Tensor:
    """The prompt and `new_tokens` more, (B, T + new_tokens); temperature 0 takes the likeliest token.

    Raises ValueError where that exceeds block_size.
    """
    length = prompt.shape[1] + new_tokens
    if length > model.config.block_size + 1:
        raise ValueError(f"{length} tokens: block_size is {model.config.block_size}")
    generator = torch.Generator(device=prompt.device).manual_seed(seed)
    cache = model.new_cache(prompt.shape[0], length)
    tokens, feed = prompt, prompt
    for _ in range(new_tokens):
        logits = model(feed, communicator, cache, last_only=True)[:, -1].float()  # (B, V)
        feed = _pick(logits, temperature, top_k, generator)
        tokens = torch.cat([tokens, feed], dim=1)
    return tokens


def _pick(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> Tensor:  # (B, V) -> (B, 1)
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    values, indices = (logits / temperature).topk(min(top_k, logits.shape[-1]))
    chosen = torch.multinomial(values.softmax(-1), 1, generator=generator)
    return indices.gather(-1, chosen)
