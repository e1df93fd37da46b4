"""Causal softmax attention: torch's kernel, or blocks of matrix products where a CPU is faster with those."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64  # queries at a time: they see the keys up to their own end, so that little is computed to be masked
SCORES = 1 << 18  # numbers a core at a time, for as many heads as fit: they stay in its cache until read again
LEAST_PRODUCTS = 10 << 20  # T · S · hd of all heads, a core: with fewer, calling many operations costs what it saves
LEAST_QUERIES = BLOCK
MOST_KEYS = 768  # beyond, torch's kernel is as fast, and faster at 2048


def is_plain_inference(x: Tensor) -> bool:
    """Whether nothing needs a gradient, a trace or another type: float32 on a CPU, where memory may be used again."""
    return (
        x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # q (B, h, T, hd); k, v (B, h, S, hd)
    """Attention of the last T of S positions over all S, each to itself and what is before it: (B, h, T, hd)."""
    new, seen = q.shape[2], k.shape[2]
    # whether it is inference comes first: asking for the number of threads would break a compiled graph
    if (
        is_plain_inference(q)
        and new >= LEAST_QUERIES
        and seen <= MOST_KEYS
        and q.shape[1] * new * seen * q.shape[3] >= LEAST_PRODUCTS * torch.get_num_threads()
    ):
        return blocked_attention(q, k, v)
    if new == seen:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if new == 1:  # a single new token sees everything
        return F.scaled_dot_product_attention(q, k, v)
    rows = torch.arange(seen - new, seen, device=q.device)[:, None]
    mask = torch.arange(seen, device=q.device)[None, :] <= rows  # (T, S)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def blocked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # q (B, h, T, hd); k, v (B, h, S, hd)
    """`causal_attention` as batched products over BLOCK queries of some heads of one sequence, without gradients.

    The inputs may have any strides with a last one of 1; the output lies in memory as (B, T, h, hd).
    """
    batch, heads, new, head_dim = q.shape
    seen = k.shape[2]
    before = seen - new
    most = max(1, SCORES * torch.get_num_threads() // (BLOCK * seen))  # heads at a time
    together = -(-heads // -(-heads // most))  # the same in every turn
    future = q.new_full((BLOCK, BLOCK), -math.inf).triu_(1)
    free = q.new_empty(min(together, heads) * min(BLOCK, new) * seen)
    y = q.new_empty(batch, new, heads, head_dim)
    for sequence in range(batch):
        for first in range(0, heads, together):
            some = slice(first, min(first + together, heads))
            queries, keys, values = q[sequence, some], k[sequence, some].transpose(1, 2), v[sequence, some]
            found = y[sequence, :, some].transpose(0, 1)  # (h', T, hd)
            for start in range(0, new, BLOCK):
                end = min(start + BLOCK, new)
                shape = (len(queries), end - start, before + end)
                scores = free[: math.prod(shape)].view(shape)
                block = queries[:, start:end]  # (h', t, hd)
                torch.baddbmm(
                    scores, block, keys[:, :, : before + end], beta=0, alpha=1 / math.sqrt(head_dim), out=scores
                )
                scores[:, :, before + start :].add_(future[: end - start, : end - start])
                torch.softmax(scores, -1, out=scores)
                torch.bmm(scores, values[:, : before + end], out=found[:, start:end])
    return y.transpose(1, 2)
