"""What training is measured against: other code for the same function, and its products and attention alone."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from benchmarks.gpt2_export import to_gpt2
from pipeline.models import Transformer
from pipeline.models.layers import Attention, WayLinear


def mean_loss(logits: Tensor, windows: Tensor) -> Tensor:  # (B, T, V), (B, T + 1) -> ()
    """Cross-entropy of logits that stand whole in memory."""
    return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())


class WholeLogits(nn.Module):
    """Our own model, without the chunked loss."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, windows: Tensor, share: float) -> Tensor:
        return mean_loss(self.model(windows[:, :-1]), windows) * share


class HuggingFace(nn.Module):
    """transformers' GPT-2 with the weights of our standard model, as it is published: its GELU takes several passes."""

    activation = "gelu_new"

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.gpt2 = to_gpt2(model).train()
        for block in self.gpt2.transformer.h:
            block.mlp.act = ACT2FN[self.activation]

    def forward(self, windows: Tensor, share: float) -> Tensor:
        return mean_loss(self.gpt2(windows[:, :-1], use_cache=False).logits, windows) * share


class HuggingFaceOneKernel(HuggingFace):
    """The same with torch's own kernel of the same GELU."""

    activation = "gelu_pytorch_tanh"


class LoopOverWays(nn.Module):
    """Kraken as one would write it first: torch's own modules, and a loop over ways in every layer."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        config, n_ways = model.config, model.config.n_ways
        self.wte = nn.Embedding.from_pretrained(model.wte.weight.detach().clone(), freeze=False)
        self.wpe = nn.Embedding.from_pretrained(model.wpe.weight.detach().clone(), freeze=False)
        self.layers = nn.ModuleList(
            nn.ModuleList(_OneWay(block, way, config.n_embd, config.layer_norm_eps) for way in range(n_ways))
            for block in model.blocks
        )
        weight = model.concat.project.weight.detach()  # (W, d, d)
        self.concat = _linear(weight.reshape(n_ways * config.n_embd, config.n_embd))
        self.ln_f = _norm(model.ln_f.weight.detach()[0], config.layer_norm_eps)

    def forward(self, windows: Tensor, share: float) -> Tensor:
        tokens = windows[:, :-1]
        embedded = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]  # (B, T, d)
        streams = [embedded] * len(self.layers[0])
        for index, ways in enumerate(self.layers):
            total = sum(streams[1:], start=streams[0]) if index else None
            streams = [way(x, total) for way, x in zip(ways, streams, strict=True)]
        hidden = self.ln_f(self.concat(torch.cat(streams, dim=-1)))
        return mean_loss(F.linear(hidden, self.wte.weight), windows) * share


class _OneWay(nn.Module):
    def __init__(self, block: nn.Module, way: int, n_embd: int, eps: float) -> None:
        super().__init__()
        self.n_head, self.head_dim = block.attn.n_head, block.attn.head_dim
        self.ln_1, self.ln_2 = (_norm(norm.weight.detach()[way], eps) for norm in (block.ln_1, block.ln_2))
        parts = (block.attn.qkv, block.attn.out, block.mlp.up, block.mlp.down)
        self.qkv, self.out, self.up, self.down = (_linear(part.weight.detach()[way]) for part in parts)

    def forward(self, x: Tensor, total: Tensor | None) -> Tensor:  # (B, T, d) -> (B, T, d)
        b, t, _ = x.shape
        split = self.qkv(self.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (part.view(b, t, self.n_head, self.head_dim).transpose(1, 2) for part in split)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, -1)
        h = self.out(y)
        u = x + h if total is None else total + h
        return x + h + self.down(F.gelu(self.up(self.ln_2(u)), approximate="tanh"))


def _linear(weight: Tensor) -> nn.Linear:  # (in, out)
    linear = nn.Linear(*weight.shape, bias=False)
    with torch.no_grad():
        linear.weight.copy_(weight.t())
    return linear


def _norm(weight: Tensor, eps: float) -> nn.LayerNorm:  # (d,)
    norm = nn.LayerNorm(len(weight), eps=eps, bias=False)
    with torch.no_grad():
        norm.weight.copy_(weight)
    return norm


def floor(model: Transformer, rows: int, batch_size: int) -> Callable[[], None]:
    """The products and attention of a step, forward and backward, with the model's own weights, and nothing else.

    `rows` = batch_size · T tokens. Every product comes three times: forward, and towards its input and its weight.
    """
    work: list[Callable[[], object]] = []
    for module in model.modules():
        if isinstance(module, WayLinear):
            work.append(_products(module.weight.detach(), rows))
        elif isinstance(module, Attention):
            work.append(_attention(module, rows, batch_size))
    work.append(_products(model.head_weight.detach().t()[None], rows))

    def run() -> None:
        for each in work:
            each()

    return run


def _products(weight: Tensor, rows: int) -> Callable[[], object]:  # (W, in, out)
    w, n_in, n_out = weight.shape
    x, above = torch.randn(w, rows, n_in), torch.randn(w, rows, n_out)
    if w == 1:
        flat, x, above = weight[0], x[0], above[0]
        return lambda: (torch.mm(x, flat), torch.mm(above, flat.t()), torch.mm(x.t(), above))
    return lambda: (torch.bmm(x, weight), torch.bmm(above, weight.mT), torch.bmm(x.mT, above))


def _attention(module: Attention, rows: int, batch_size: int) -> Callable[[], object]:
    ways = module.qkv.weight.shape[0]
    shape = (ways * batch_size, rows // batch_size, 3, module.n_head, module.head_dim)
    parts = torch.randn(shape).unbind(2)
    q, k, v = (part.transpose(1, 2).requires_grad_() for part in parts)  # each (W·B, h, T, hd)
    above = torch.randn(shape[:2] + shape[3:]).transpose(1, 2)

    def run() -> object:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.autograd.grad(y, (q, k, v), above)

    return run
