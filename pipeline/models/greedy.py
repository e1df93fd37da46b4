"""The likeliest token over ranks: each multiplies with its share of the head, and one candidate a sequence travels."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.communication import LOCAL, Communicator
from pipeline.models.placement import vocabulary_share
from pipeline.models.transformer import Transformer


def likeliest(model: Transformer, hidden: Tensor, communicator: Communicator = LOCAL) -> Tensor:  # (B, T, d) -> (B,)
    """What argmax over the whole vocabulary gives at the last position, on every rank alike; ties to the lowest token.

    Every rank holds the whole table, which the embedding needs, and reads its own rows of it.
    """
    share = vocabulary_share(model.config, model.placement)
    logits = model.logits(hidden[:, -1:], share)[:, -1]  # (B, V / N)
    return logits.argmax(-1) if model.placement.tp_size == 1 else best_of_ranks(logits, share, communicator.gather)


def best_of_ranks(logits: Tensor, share: range, gather: Callable[[Tensor], Tensor]) -> Tensor:  # (B, V / N) -> (B,)
    """The likeliest token of all shares, of which this rank has one; `gather` stacks every rank's candidates."""
    value, token = logits.max(-1)  # each (B,), of equal ones the first
    mine = torch.stack([value.double(), (token + share.start).double()])  # (2, B), both exact
    values, tokens = gather(mine).unbind(1)  # each (N, B)
    return tokens.gather(0, values.argmax(0, keepdim=True))[0].long()  # shares lie in the order of tokens
