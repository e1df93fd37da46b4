"""Perplexity on the validation split: the whole of it once, or nanoGPT's random windows."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipeline import files
from pipeline.config import Config
from pipeline.data import TokenData, TokenSplit
from pipeline.errors import DataError
from pipeline.models import Transformer
from pipeline.results.perplexity import PerplexityResult
from pipeline.results.scores import ratio_error

LOGIT_ROWS = 1024  # positions whose logits exist at once


@dataclass(frozen=True)
class Perplexity:
    """Mean loss per token in nats with its standard error, windows being the units."""

    loss_nats: float
    standard_error_nats: float
    tokens: int
    windows: int

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss_nats)

    @property
    def standard_error_perplexity(self) -> float:
        """By the delta method: the slope of exp is the perplexity itself."""
        return self.perplexity * self.standard_error_nats


def make_result(config: Config, model: Transformer, manifest: dict[str, Any], found: Perplexity) -> PerplexityResult:
    """What perplexity.json says. Bits per byte only for the whole split, whose bytes the manifest counts."""
    settings, single = config.evaluation, math.isnan(found.standard_error_nats)
    is_random = settings.perplexity_protocol == "random_windows"
    text_bytes = None if is_random else manifest["splits"]["val"].get("text_bytes")
    return PerplexityResult(
        kind="measured",
        model=config.model.name,
        architecture=config.model.architecture,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        scale=config.scale.name,
        data=config.data.name,
        protocol=settings.perplexity_protocol,
        seed=settings.random_windows_seed if is_random else None,
        block_size=config.model.block_size,
        loss_nats=found.loss_nats,
        standard_error_nats=None if single else found.standard_error_nats,
        perplexity=found.perplexity,
        standard_error_perplexity=None if single else found.standard_error_perplexity,
        bits_per_byte=found.loss_nats * found.tokens / math.log(2) / text_bytes if text_bytes else None,
        tokens=found.tokens,
        windows=found.windows,
        unigram_loss_nats=manifest.get("unigram_loss_nats"),
    )


def check_tokenizer(trained: Path, data: TokenData) -> None:
    """The tokens must be the model's own; raises DataError where another tokenizer made them.

    A model folder without a tokenizer passes: nothing says otherwise.
    """
    own = trained / "tokenizer.json"
    if own.is_file() and files.sha256_of(own) != data.manifest["tokenizer"]["sha256"]:
        raise DataError(
            f"{data.folder} was tokenised with another tokenizer than the model in {trained}; "
            "prepare the data again or name the data that the model was trained on"
        )


def random_windows(split: TokenSplit, block_size: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """`count` windows (block_size + 1,) at uniform starts, as nanoGPT's estimate_loss draws them.

    Raises DataError where the split is shorter than one window.
    """
    if split.tokens <= block_size + 1:
        raise DataError(
            f"the validation split has {split.tokens} tokens, random windows of block_size={block_size} need more; "
            "use evaluation.perplexity_protocol=full"
        )
    generator = torch.Generator().manual_seed(seed)
    for start in torch.randint(split.tokens - block_size, (count,), generator=generator).tolist():
        yield split.read(start, block_size + 1)


@torch.inference_mode()
def measure(
    model: Transformer,
    windows: Iterable[np.ndarray],
    batch_size: int,
    progress: Callable[[int], object] = lambda done: None,
) -> Perplexity:
    """Score `windows` (T+1,) each, in order, `batch_size` at a time; `progress` is told windows done.

    Raises DataError where there is no window with a target.
    """
    model.eval()
    losses: list[float] = []
    lengths: list[int] = []
    for batch in _batches(windows, batch_size):
        losses += _window_losses(model, batch)
        lengths += [len(window) - 1 for window in batch]
        progress(len(batch))
    if not lengths:
        raise DataError("the validation split has fewer than two tokens: nothing to predict; hold out more text")
    return summarise(np.array(losses), np.array(lengths))


def summarise(losses: np.ndarray, lengths: np.ndarray) -> Perplexity:
    """From total nats and tokens of each window, (windows,) each.

    Neighbouring tokens are correlated, so windows and not tokens are the units: the standard error is
    that of a ratio of sums over windows; NaN for a single window.
    """
    tokens = int(lengths.sum())
    return Perplexity(float(losses.sum() / tokens), ratio_error(losses, lengths), tokens, len(losses))


def _batches(windows: Iterable[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    """Runs of at most batch_size windows of equal length, in order."""
    batch: list[np.ndarray] = []
    for window in windows:
        if batch and (len(batch) == batch_size or len(window) != len(batch[0])):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _window_losses(model: Transformer, batch: list[np.ndarray]) -> list[float]:
    """Total nats of each window."""
    tokens = torch.from_numpy(np.stack(batch)).to(model.wte.weight.device)  # (B, T+1)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    hidden = model.hidden(inputs)  # (B, T, d)
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    parts = [
        F.cross_entropy(
            model.logits(flat[start : start + LOGIT_ROWS]).float(), wanted[start : start + LOGIT_ROWS], reduction="none"
        )
        for start in range(0, len(wanted), LOGIT_ROWS)
    ]
    return [float(total) for total in torch.cat(parts).view(inputs.shape).double().sum(1)]
