"""The parts every architecture is made of.

Activations carry a leading axis of the ways that live in this process, (W, B, T, d), and weights the
same axis, (W, in, out). Standard models have W = 1. A stream that all ways share is (1, B, T, d).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.models.attention import causal_attention, is_plain_inference
from pipeline.models.cache import LayerCache, PromptMemory

SLOPE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715  # of GELU: 2u = SLOPE · (x + CUBIC · x^3)
GELU_CHUNK = 1 << 17  # numbers a core that stay in its cache from one operation to the next


class WayLinear(nn.Module):
    """x[w] @ weight[w] for every way w as one batched product."""

    def __init__(self, n_ways: int, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_ways, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(n_ways, out_features)) if bias else None

    def forward(self, x: Tensor, adds_bias: bool = True) -> Tensor:  # (W or 1, B, T, in) -> (W, B, T, out)
        n_ways, n_in, n_out = self.weight.shape
        _, b, t, _ = x.shape
        bias = self.bias if adds_bias else None
        if n_ways == 1:  # a plain product is faster than a batch of one
            flat, weight = x.reshape(b * t, n_in), self.weight.squeeze(0)  # backward of [0] would fill a whole gradient
            if bias is None:
                return torch.mm(flat, weight).view(1, b, t, n_out)
            return torch.addmm(bias.squeeze(0), flat, weight).view(1, b, t, n_out)
        rows = x.expand(n_ways, b, t, n_in).reshape(n_ways, b * t, n_in)
        if bias is None:
            return torch.bmm(rows, self.weight).view(n_ways, b, t, n_out)
        return torch.baddbmm(bias[:, None, :], rows, self.weight).view(n_ways, b, t, n_out)


class WayLayerNorm(nn.Module):
    """LayerNorm with weights of its own for every way."""

    def __init__(self, n_ways: int, n_embd: int, eps: float, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(n_ways, n_embd))
        self.bias = nn.Parameter(torch.zeros(n_ways, n_embd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (W or 1, B, T, d) -> (W, B, T, d)
        n_ways, n_embd = self.weight.shape
        if n_ways == 1:
            bias = None if self.bias is None else self.bias.squeeze(0)
            return F.layer_norm(x, (n_embd,), self.weight.squeeze(0), bias, self.eps)
        if x.is_cpu and x.shape[0] == n_ways and not torch.compiler.is_compiling():
            # a kernel a way with its weight in it: fewer passes, forward and most of all backward
            biases = [None] * n_ways if self.bias is None else self.bias.unbind()
            ways = zip(x.unbind(), self.weight.unbind(), biases, strict=True)
            return torch.stack([F.layer_norm(way, (n_embd,), weight, bias, self.eps) for way, weight, bias in ways])
        normed = F.layer_norm(x, (n_embd,), eps=self.eps) * self.weight[:, None, None, :]
        return normed if self.bias is None else normed + self.bias[:, None, None, :]


class Attention(nn.Module):
    """Causal multi-head attention of every way: fused QKV, softmax attention, output projection."""

    def __init__(self, n_ways: int, n_head: int, head_dim: int, n_embd: int, bias: bool) -> None:
        super().__init__()
        self.n_head = n_head  # per way, on this rank
        self.head_dim = head_dim
        self.qkv = WayLinear(n_ways, n_embd, 3 * n_head * head_dim, bias)
        self.out = WayLinear(n_ways, n_head * head_dim, n_embd, bias)

    def forward(  # (W or 1, B, T, d) -> (W, B, T, d)
        self, x: Tensor, cache: LayerCache | PromptMemory | None = None
    ) -> Tensor:
        qkv = self.qkv(x)  # (W, B, T, 3·h·hd)
        w, b, t, _ = qkv.shape
        parts = qkv.view(w * b, t, 3, self.n_head, self.head_dim).unbind(2)  # each (W·B, T, h, hd)
        q, k, v = (part.transpose(1, 2) for part in parts)  # each (W·B, h, T, hd)
        y = causal_attention(q, k, v) if cache is None else cache.attend(q, k, v)
        y = y.transpose(1, 2).reshape(w, b, t, self.n_head * self.head_dim)
        out: Tensor = self.out(y)
        return out


class FeedForward(nn.Module):
    """d -> hidden -> d with tanh-approximated GELU, for every way."""

    def __init__(self, n_ways: int, n_embd: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.up = WayLinear(n_ways, n_embd, hidden, bias)
        self.down = WayLinear(n_ways, hidden, n_embd, bias)

    def forward(self, x: Tensor) -> Tensor:  # (W, B, T, d) -> (W, B, T, d)
        if is_plain_inference(x):
            hidden = overwrite_with_gelu(self.up(x, adds_bias=False), self.up.bias)
        else:
            hidden = gelu(self.up(x))
        out: Tensor = self.down(hidden)
        return out


def gelu(x: Tensor) -> Tensor:
    """GELU by its tanh approximation, x/2 · (1 + tanh u) with u = sqrt(2/pi) · (x + 0.044715 x^3).

    In float32 on a CPU a model computes it as x · sigmoid(2u), the same function, here and in `overwrite_with_gelu`:
    torch's own takes twice as long there, and GELU is most of what a model does beside its products.
    """
    learns = torch.is_grad_enabled() and x.requires_grad
    if learns and x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling():
        y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
        return y
    return F.gelu(x, approximate="tanh")


def overwrite_with_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:  # x (W, …, n), contiguous; bias (W, n)
    """GELU of x + bias in x's own memory, float32 on a CPU and without gradients: chunk by chunk, while it is near."""
    most = GELU_CHUNK // 2 * torch.get_num_threads()
    slope = torch.tensor(SLOPE)
    ways = [x.view(-1, x.shape[-1])] if bias is None else x.view(len(bias), -1, x.shape[-1]).unbind()
    for way, added in zip(ways, [None] if bias is None else bias.unbind(), strict=True):
        count = max(1, min(len(way), -(-way.numel() // most)))
        free = torch.empty(-(-len(way) // count), way.shape[-1])
        for part in way.chunk(count):
            if added is not None:
                part.add_(added)
            twice_u = torch.addcmul(slope, part, part, value=SLOPE * CUBIC, out=free[: len(part)]).mul_(part)
            part.mul_(twice_u.sigmoid_())
    return x


class _Gelu(torch.autograd.Function):
    """GELU that keeps its derivative for backward instead of its input: a product is all that is left to do there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, derivative = torch.empty_like(x), torch.empty_like(x)
        slope, one = torch.tensor(SLOPE), torch.ones(())
        count = max(1, -(-x.numel() // (GELU_CHUNK * torch.get_num_threads())))
        free = torch.empty(-(-x.numel() // count))
        for x_part, y_part, s in zip(*(each.view(-1).chunk(count) for each in (x, y, derivative)), strict=True):
            # s = sigmoid(2u) and y = x·s, so that dy/dx = s + (1 - s) · y · d(2u)/dx
            torch.addcmul(slope, x_part, x_part, value=SLOPE * CUBIC, out=s).mul_(x_part).sigmoid_()
            torch.mul(x_part, s, out=y_part)
            rest = torch.addcmul(slope, x_part, x_part, value=3 * SLOPE * CUBIC, out=free[: len(s)]).mul_(y_part)
            s.lerp_(one, rest)
        ctx.save_for_backward(derivative)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> Tensor:
        derivative: Tensor = ctx.saved_tensors[0]
        return derivative.mul_(above)  # autograd refuses a second backward by itself


def split_tokens(x: Tensor) -> Sequence[Tensor]:  # (W, B, T, d) -> (W, B, t, d) twice, the first no shorter
    """A prompt in two chunks."""
    return torch.split(x, -(-x.shape[2] // 2), dim=2)


def join_tokens(chunks: Sequence[Tensor]) -> Tensor:  # each (W, B, t, d) -> (W, B, sum of t, d)
    """The prompt that the chunks are of."""
    return torch.cat(list(chunks), dim=2)
