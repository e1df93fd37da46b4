"""The loss that training lowers, without the logits ever standing whole in memory."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pipeline.communication import LOCAL, Communicator
from pipeline.models import Transformer
from pipeline.models.generate import generate

# Bytes of the logits that stand at once, in the type that log-softmax computes in. Each chunk of rows reads and writes
# the head's whole gradient, which small chunks would pay for; larger ones gain nothing measurable.
CHUNK_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}


class LossModule(nn.Module):
    """Mean next-token loss of a micro-batch, in nats: what is wrapped for data-parallel workers and compiled.

    Over tensor-parallel ranks each one's result is its share of the rows; their sum is the mean.
    """

    def __init__(self, model: Transformer, communicator: Communicator = LOCAL) -> None:
        super().__init__()
        self.model = model
        self.communicator = communicator

    def forward(self, windows: Tensor, share: float = 1.0) -> Tensor:  # (B, T + 1) -> ()
        """The mean over all targets, times `share`: of a step that accumulates gradients, this micro-batch's."""
        hidden = self.model.hidden(windows[:, :-1], self.communicator).flatten(0, 1)  # (B·T, d)
        targets = windows[:, 1:].flatten()  # (B·T,)
        rank, tp_size = self.model.placement.rank, self.model.placement.tp_size
        mine = slice(rank * len(targets) // tp_size, (rank + 1) * len(targets) // tp_size)
        return summed_cross_entropy(hidden[mine], self.model.head_weight, targets[mine], share / len(targets))

    def generate(self, prompt: Tensor, new_tokens: int, seed: int) -> Tensor:  # (B, T) -> (B, T + new_tokens)
        """A continuation, drawn on all ranks alike."""
        return generate(self.model, prompt, new_tokens, seed=seed, communicator=self.communicator)


def summed_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """`scale` times the summed cross-entropy of logits = hidden @ weightᵀ, in nats: () float32, or float64 of float64.

    hidden (rows, d), weight (V, d), targets (rows,) int64. Products run in autocast's type, everything else in
    float32. Where gradients are wanted they are computed here, chunk by chunk along with the loss, so that the head is
    multiplied three times in all and a chunk's logits are gone before the next one's; backward hands them on. A factor
    that is known belongs into `scale`, which costs nothing: one that comes in backward is another pass over the
    weight's gradient.
    """
    device = hidden.device.type
    lowered = torch.is_autocast_enabled(device) and hidden.dtype != torch.float64  # which autocast leaves alone
    dtype = torch.get_autocast_dtype(device) if lowered else hidden.dtype
    with torch.autocast(device, enabled=False):
        if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
            loss: Tensor = _SummedCrossEntropy.apply(hidden, weight, targets, scale, dtype)  # type: ignore[no-untyped-call]
            return loss
        return _chunked(hidden, weight, targets, scale, dtype, (False, False))[0]


class _SummedCrossEntropy(torch.autograd.Function):
    """The gradients are outputs of the forward, kept until backward asks for them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
        loss, *gradients = _chunked(hidden, weight, targets, scale, dtype, ctx.needs_input_grad[:2])
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if each is None else _scaled(each, above[0]) for each in ctx.saved_tensors), None, None, None


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    if factor.is_cpu and not torch.compiler.is_compiling() and factor.item() == 1:
        return gradient  # on a GPU asking would wait for it
    return gradient * factor.to(gradient.dtype)


def _chunked(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, dtype: torch.dtype, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and the gradients of hidden (rows, d) and weight (V, d) as far as wanted."""
    heads = weight.to(dtype)
    count = _chunk_count(hidden, weight)
    chunks = (each.chunk(count) for each in (hidden.to(dtype), (hidden * scale).to(dtype), targets))
    nats, hidden_parts, weight_gradient = [], [], None
    for rows, scaled, aims in zip(*chunks, strict=True):
        logits = torch.mm(rows, heads.t())  # (chunk, V)
        logits = logits.float() if dtype.itemsize < 4 else logits
        log_p = torch.log_softmax(logits, 1, out=logits)
        nats.append(log_p.gather(1, aims[:, None]))
        if not any(wanted):
            continue
        slope = log_p.exp_()
        slope.scatter_add_(1, aims[:, None], slope.new_full((len(aims), 1), -1.0))  # softmax - one-hot
        slope = slope.to(dtype)
        if wanted[0]:
            hidden_parts.append(torch.mm(slope, heads).to(hidden.dtype).mul_(scale))
        if wanted[1]:  # the scale came in with the rows: far fewer numbers than the gradient has
            if weight_gradient is None:
                weight_gradient = torch.mm(slope.t(), scaled).to(weight.dtype)
            elif dtype == weight.dtype:
                weight_gradient.addmm_(slope.t(), scaled)
            else:
                weight_gradient.add_(torch.mm(slope.t(), scaled))
    loss = torch.cat(nats).sum().mul(-scale)
    return loss, torch.cat(hidden_parts) if hidden_parts else None, weight_gradient


def _chunk_count(hidden: Tensor, weight: Tensor) -> int:
    """In how many chunks the rows go."""
    logits_bytes = len(hidden) * len(weight) * max(4, hidden.dtype.itemsize)
    return max(1, math.ceil(logits_bytes / CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])))
