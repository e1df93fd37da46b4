"""Ladder and Desync Residual (arXiv 2501.06589), Parallel Track (arXiv 2602.07306), naively, rank by rank.

Every rank keeps its own residual and computes its own partial outputs from slices of the whole weights;
an all-reduce is a plain sum over a list of ranks. Shares no code with pipeline/models.
"""

import torch
from torch import Tensor

from tests.unit.naive_models import State, attention, embed, ffn, head, layer_norm


def all_reduce(partials: list[Tensor]) -> Tensor:
    total = torch.zeros_like(partials[0])
    for partial in partials:
        total = total + partial
    return total


def ladder_logits(state: State, tokens: list[int], n_layer: int, n_head: int, n_ranks: int, eps: float) -> Tensor:
    """Each module reads the residual without the module just before it; the sums are added one module late."""
    residual = embed(state, tokens)
    pending_attention = pending_ffn = None
    for layer in range(n_layer):
        if pending_attention is not None:
            residual = residual + pending_attention
        pending_attention = all_reduce(
            [_megatron_attention(state, layer, rank, n_ranks, n_head, eps, residual) for rank in range(n_ranks)]
        )
        if pending_ffn is not None:
            residual = residual + pending_ffn
        pending_ffn = all_reduce([_megatron_ffn(state, layer, rank, n_ranks, eps, residual) for rank in range(n_ranks)])
    return head(state, residual + pending_attention + pending_ffn, eps)


def desync_logits(state: State, tokens: list[int], n_layer: int, n_ways: int, n_head: int, eps: float) -> Tensor:
    """n_head is per way. The attention sum is dropped: ranks drift apart until the FFN's sum brings them together."""
    streams = [embed(state, tokens) for _ in range(n_ways)]
    for layer in range(n_layer):
        partials = []
        for i in range(n_ways):
            prefix = f"blocks.{layer}."
            x = streams[i]
            normed = layer_norm(x, state[prefix + "ln_1.weight"][i], None, eps)
            y = x + attention(
                normed, state[prefix + "attn.qkv.weight"][i], state[prefix + "attn.out.weight"][i], n_head
            )
            normed = layer_norm(y, state[prefix + "ln_2.weight"][i], None, eps)
            partial = ffn(normed, state[prefix + "mlp.up.weight"][i], state[prefix + "mlp.down.weight"][i])
            partials.append(partial + y / n_ways)
        streams = [all_reduce(partials) for _ in range(n_ways)]
    return head(state, streams[0], eps)


def parallel_track_logits(
    state: State, tokens: list[int], n_layer: int, n_ways: int, n_head: int, depth: int, eps: float
) -> Tensor:
    """Tracks (arXiv 2602.07306), each a whole model of n_head heads between two means; n_head is per track."""
    tracks = [embed(state, tokens) for _ in range(n_ways)]
    for layer in range(n_layer):
        prefix = f"blocks.{layer}."
        for i in range(n_ways):
            normed = layer_norm(tracks[i], state[prefix + "ln_1.weight"][i], None, eps)
            x = tracks[i] + attention(
                normed, state[prefix + "attn.qkv.weight"][i], state[prefix + "attn.out.weight"][i], n_head
            )
            normed = layer_norm(x, state[prefix + "ln_2.weight"][i], None, eps)
            tracks[i] = x + ffn(normed, state[prefix + "mlp.up.weight"][i], state[prefix + "mlp.down.weight"][i])
        if (layer + 1) % depth == 0 or layer == n_layer - 1:
            tracks = [all_reduce(tracks) / n_ways for _ in range(n_ways)]
    return head(state, tracks[0], eps)


def _megatron_attention(
    state: State, layer: int, rank: int, n_ranks: int, n_head: int, eps: float, x: Tensor
) -> Tensor:
    """One rank's heads: columns of Q, K and V, and the rows of the output projection that belong to them."""
    prefix = f"blocks.{layer}."
    qkv, out = state[prefix + "attn.qkv.weight"][0], state[prefix + "attn.out.weight"][0]
    width = qkv.shape[1] // 3
    step = width // n_ranks
    columns = [i * width + rank * step + column for i in range(3) for column in range(step)]
    rows = [rank * step + row for row in range(step)]
    normed = layer_norm(x, state[prefix + "ln_1.weight"][0], None, eps)
    return attention(normed, qkv[:, columns], out[rows], n_head // n_ranks)


def _megatron_ffn(state: State, layer: int, rank: int, n_ranks: int, eps: float, x: Tensor) -> Tensor:
    prefix = f"blocks.{layer}."
    up, down = state[prefix + "mlp.up.weight"][0], state[prefix + "mlp.down.weight"][0]
    step = up.shape[1] // n_ranks
    columns = [rank * step + column for column in range(step)]
    normed = layer_norm(x, state[prefix + "ln_2.weight"][0], None, eps)
    return ffn(normed, up[:, columns], down[columns])
