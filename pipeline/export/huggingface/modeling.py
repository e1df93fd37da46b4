"""Kraken and its neighbours for transformers: one file, one process, no cache.

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

Weights carry the axis of a layer's ways first: (W, in, out). Models without ways have W = 1.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


class KrakenConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers is untyped here
    """Shape of a model; `architecture` names one of the forwards below."""

    model_type = "kraken_pipeline"

    def __init__(
        self,
        architecture: str = "kraken",
        vocab_size: int = 50304,
        block_size: int = 1024,
        n_embd: int = 504,
        n_layer: int = 12,
        n_head: int = 12,
        n_ways: int = 4,
        track_depth: int = 1,
        head_dim: int = 168,
        ffn_dim: int = 1008,
        bias: bool = False,
        layer_norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        self.architecture = architecture
        self.vocab_size = vocab_size
        self.block_size = self.max_position_embeddings = block_size
        self.n_embd = self.hidden_size = n_embd
        self.n_layer = self.num_hidden_layers = n_layer
        self.n_head = self.num_attention_heads = n_head
        self.n_ways = n_ways
        self.track_depth = track_depth
        self.head_dim = head_dim
        self.ffn_dim = ffn_dim
        self.bias = bias
        self.layer_norm_eps = layer_norm_eps
        super().__init__(**kwargs)


class Linear(nn.Module):
    """x[w] @ weight[w] for every way w."""

    def __init__(self, ways: int, n_in: int, n_out: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(ways, n_in, n_out))
        self.bias = nn.Parameter(torch.empty(ways, n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (W or 1, B, T, in) -> (W, B, T, out)
        y = x @ self.weight[:, None]
        return y if self.bias is None else y + self.bias[:, None, None]


class Norm(nn.Module):
    """LayerNorm with weights of its own for every way."""

    def __init__(self, ways: int, n_embd: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(ways, n_embd))
        self.bias = nn.Parameter(torch.empty(ways, n_embd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (W or 1, B, T, d) -> (W, B, T, d)
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps) * self.weight[:, None, None]
        return y if self.bias is None else y + self.bias[:, None, None]


class Attention(nn.Module):
    """Causal multi-head attention of every way."""

    def __init__(self, config: KrakenConfig, ways: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, config.head_dim
        self.qkv = Linear(ways, config.n_embd, 3 * heads * config.head_dim, config.bias)
        self.out = Linear(ways, heads * config.head_dim, config.n_embd, config.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # (W, B, T, d) -> (W, B, T, d); mask (B, 1, T, T)
        y = self.qkv(x)
        w, b, t, _ = y.shape
        q, k, v = y.view(w, b, t, 3, self.heads, self.head_dim).permute(3, 0, 1, 4, 2, 5)  # (W, B, h, T, hd)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(z.transpose(2, 3).reshape(w, b, t, -1))
        return out


class FeedForward(nn.Module):
    """d -> hidden -> d with tanh-approximated GELU, for every way."""

    def __init__(self, config: KrakenConfig, ways: int) -> None:
        super().__init__()
        self.up = Linear(ways, config.n_embd, config.ffn_dim, config.bias)
        self.down = Linear(ways, config.ffn_dim, config.n_embd, config.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """The parts of a layer; the model wires them."""

    def __init__(self, config: KrakenConfig) -> None:
        super().__init__()
        ways = config.n_ways
        self.ln_1 = Norm(ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.attn = Attention(config, ways, config.n_head // ways)
        if config.architecture != "parallel":
            self.ln_2 = Norm(ways, config.n_embd, config.layer_norm_eps, config.bias)
        self.mlp = FeedForward(config, ways)


class Concat(nn.Module):
    """W_concat as a sum over ways."""

    def __init__(self, config: KrakenConfig) -> None:
        super().__init__()
        self.project = Linear(config.n_ways, config.n_embd, config.n_embd)


class KrakenForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A language model with its head tied to the embedding. `generate` works, recomputing the prompt each step."""

    config_class = KrakenConfig
    _no_split_modules = ("Block",)
    _supports_sdpa = True

    def __init__(self, config: KrakenConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.concat = Concat(config) if config.architecture == "kraken" else None
        self.ln_f = Norm(1, config.n_embd, config.layer_norm_eps, config.bias)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """A model made from its configuration alone: N(0, 0.02), LayerNorms one, biases zero."""
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(parameter)
            elif isinstance(module, Norm):
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, 0.02)

    def _layers(self) -> list[Any]:
        return list(self.blocks)

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def forward(
        self,
        input_ids: Tensor,  # (B, T)
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V), and the mean loss in nats where labels are given."""
        t = input_ids.shape[1]
        if t > self.config.block_size:
            raise ValueError(f"{t} tokens: this model was trained on at most {self.config.block_size}")
        seen = torch.ones(t, t, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        positions = torch.arange(t, device=input_ids.device)[None]
        if attention_mask is not None:  # left padding counts neither as text nor as a position
            real = attention_mask.bool()
            seen = seen & (real[:, None, None, :] | torch.eye(t, dtype=torch.bool, device=real.device))
            positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        x = (self.wte(input_ids) + self.wpe(positions)).unsqueeze(0)  # (1, B, T, d)
        x = getattr(self, f"_{self.config.architecture}")(x, seen)
        if self.concat is not None:
            x = self.concat.project(x).sum(0, keepdim=True)
        logits = F.linear(self.ln_f(x)[0], self.wte.weight)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def _kraken(self, x: Tensor, seen: Tensor) -> Tensor:  # (1, B, T, d) -> (W, B, T, d)
        for index, block in enumerate(self._layers()):
            h = block.attn(block.ln_1(x), seen)
            u = x + h if index == 0 else h + x.sum(0, keepdim=True)
            x = x + h + block.mlp(block.ln_2(u))
        return x

    def _parallel(self, x: Tensor, seen: Tensor) -> Tensor:
        for block in self._layers():
            normed = block.ln_1(x)
            x = x + block.attn(normed, seen) + block.mlp(normed)
        return x

    def _ladder(self, x: Tensor, seen: Tensor) -> Tensor:
        attended = fed = torch.zeros_like(x)
        for block in self._layers():
            x = x + attended
            attended = block.attn(block.ln_1(x), seen)
            x = x + fed
            fed = block.mlp(block.ln_2(x))
        return x + attended + fed

    def _desync(self, x: Tensor, seen: Tensor) -> Tensor:
        for block in self._layers():
            y = x + block.attn(block.ln_1(x), seen)  # (W, B, T, d)
            x = (block.mlp(block.ln_2(y)) + y / self.config.n_ways).sum(0, keepdim=True)
        return x

    def _parallel_track(self, x: Tensor, seen: Tensor) -> Tensor:
        for index, block in enumerate(self._layers(), 1):
            x = x + block.attn(block.ln_1(x), seen)  # (W, B, T, d)
            x = x + block.mlp(block.ln_2(x))
            if index % self.config.track_depth == 0 or index == self.config.n_layer:
                x = x.mean(0, keepdim=True)
        return x

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids, "attention_mask": attention_mask}
