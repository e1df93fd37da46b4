"""The paper's algorithm written out naively: explicit loops over ways, heads and edges, one sequence at a time.

Shares no code with pipeline/models: it reads a state dict by name and does the arithmetic itself.
"""

import math

import torch
from torch import Tensor

State = dict[str, Tensor]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:  # (T, d)
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    y = (x - mean) / torch.sqrt(variance + eps) * weight
    return y if bias is None else y + bias


def gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(x: Tensor, qkv: Tensor, out: Tensor, n_head: int, qkv_bias=None, out_bias=None) -> Tensor:  # (T, d)
    t = x.shape[0]
    fused = x @ qkv if qkv_bias is None else x @ qkv + qkv_bias
    width = fused.shape[1] // 3
    head_dim = width // n_head
    heads = []
    for h in range(n_head):
        q = fused[:, h * head_dim : (h + 1) * head_dim]
        k = fused[:, width + h * head_dim : width + (h + 1) * head_dim]
        v = fused[:, 2 * width + h * head_dim : 2 * width + (h + 1) * head_dim]
        rows = []
        for i in range(t):  # position i sees 0..i
            scores = (k[: i + 1] @ q[i]) / math.sqrt(head_dim)
            rows.append(torch.exp(scores - scores.max()) / torch.exp(scores - scores.max()).sum() @ v[: i + 1])
        heads.append(torch.stack(rows))
    y = torch.cat(heads, dim=1) @ out
    return y if out_bias is None else y + out_bias


def ffn(x: Tensor, up: Tensor, down: Tensor, up_bias=None, down_bias=None) -> Tensor:  # (T, d)
    hidden = gelu_tanh(x @ up if up_bias is None else x @ up + up_bias)
    return hidden @ down if down_bias is None else hidden @ down + down_bias


class Way:
    """The modules of way i in layer l, looked up by name."""

    def __init__(self, state: State, layer: int, way: int, n_head: int, eps: float) -> None:
        self.state, self.prefix, self.way, self.n_head, self.eps = state, f"blocks.{layer}.", way, n_head, eps

    def get(self, name: str) -> Tensor | None:
        tensor = self.state.get(self.prefix + name)
        return None if tensor is None else tensor[self.way]

    def ln(self, which: int, x: Tensor) -> Tensor:
        return layer_norm(x, self.get(f"ln_{which}.weight"), self.get(f"ln_{which}.bias"), self.eps)

    def mha(self, x: Tensor) -> Tensor:
        return attention(
            x,
            self.get("attn.qkv.weight"),
            self.get("attn.out.weight"),
            self.n_head,
            self.get("attn.qkv.bias"),
            self.get("attn.out.bias"),
        )

    def ffn(self, x: Tensor) -> Tensor:
        return ffn(
            x,
            self.get("mlp.up.weight"),
            self.get("mlp.down.weight"),
            self.get("mlp.up.bias"),
            self.get("mlp.down.bias"),
        )


def embed(state: State, tokens: list[int]) -> Tensor:  # (T, d)
    rows = [state["wte.weight"][token] for token in tokens]
    if "wpe.weight" in state:
        rows = [row + state["wpe.weight"][i] for i, row in enumerate(rows)]
    return torch.stack(rows)


def head(state: State, x: Tensor, eps: float) -> Tensor:  # (T, d) -> (T, V)
    bias = state["ln_f.bias"][0] if "ln_f.bias" in state else None
    table = state["lm_head.weight"] if "lm_head.weight" in state else state["wte.weight"]
    return layer_norm(x, state["ln_f.weight"][0], bias, eps) @ table.T


def kraken_logits(
    state: State,
    tokens: list[int],
    n_layer: int,
    n_ways: int,
    n_head: int,
    eps: float,
    mixing: str = "sum",
    mixes_first_layer: bool = False,
) -> Tensor:
    """Layers of ways exactly as the paper's section 3 has them, or mixed otherwise; n_head is per way."""
    previous = [embed(state, tokens) for _ in range(n_ways)]
    for layer in range(n_layer):
        current = []
        for i in range(n_ways):
            way = Way(state, layer, i, n_head, eps)
            attended = way.mha(way.ln(1, previous[i]))
            a = previous[i] + attended
            u = a
            if (layer > 0 or mixes_first_layer) and mixing == "mean":
                u = attended
                for j in range(n_ways):
                    u = u + previous[j] / n_ways
            elif (layer > 0 or mixes_first_layer) and mixing != "none":
                for j in range(n_ways):  # the edges from the other ways
                    if j != i:
                        u = u + previous[j]
            current.append((u if mixing == "residual" else a) + way.ffn(way.ln(2, u)))
        previous = current
    concatenated = torch.cat(previous, dim=1)  # (T, N·d)
    w_concat = torch.cat([state["concat.project.weight"][i] for i in range(n_ways)], dim=0)  # (N·d, d)
    return head(state, concatenated @ w_concat, eps)


def standard_logits(state: State, tokens: list[int], n_layer: int, n_head: int, eps: float) -> Tensor:
    x = embed(state, tokens)
    for layer in range(n_layer):
        block = Way(state, layer, 0, n_head, eps)
        x = x + block.mha(block.ln(1, x))
        x = x + block.ffn(block.ln(2, x))
    return head(state, x, eps)


def parallel_logits(state: State, tokens: list[int], n_layer: int, n_head: int, eps: float) -> Tensor:
    x = embed(state, tokens)
    for layer in range(n_layer):
        block = Way(state, layer, 0, n_head, eps)
        normed = block.ln(1, x)
        x = x + block.mha(normed) + block.ffn(normed)
    return head(state, x, eps)
