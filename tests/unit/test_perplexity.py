"""Perplexity over windows against a plain loop, and its standard error against simulation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.compose import compose, model_config
from pipeline.config import ModelConfig
from pipeline.data import TokenSplit
from pipeline.errors import DataError
from pipeline.evaluation import perplexity
from pipeline.models import Transformer, build_model

BLOCK = 16


def model() -> Transformer:
    config = model_config("demo_kraken_4way").model_dump() | {"vocab_size": 61, "block_size": BLOCK, "init_std": 0.3}
    return build_model(ModelConfig.model_validate(config), seed=2).eval()


def split(tokens: int) -> TokenSplit:
    generator = np.random.default_rng(4)
    ids = generator.integers(0, 61, size=tokens).astype(np.uint16)
    return TokenSplit([ids[: tokens // 3], ids[tokens // 3 :]], "val")


@pytest.mark.parametrize("tokens", [2, 17, 50, 97, 100])
def test_every_token_but_the_first_is_predicted_once(tokens: int) -> None:
    net, data = model(), split(tokens)
    found = perplexity.measure(net, data.windows(BLOCK), batch_size=4)
    ids = torch.from_numpy(data.read(0, tokens))
    losses = []
    with torch.no_grad():
        for position in range(1, tokens):  # a token sees its window's earlier tokens
            start = (position - 1) // BLOCK * BLOCK
            logits = net(ids[None, start:position])[0, -1]
            losses.append(F.cross_entropy(logits, ids[position]).item())
    assert found.tokens == tokens - 1
    assert found.windows == math.ceil((tokens - 1) / BLOCK)
    assert found.loss_nats == pytest.approx(np.mean(losses), abs=1e-5)
    assert found.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)


def test_twice_the_same() -> None:
    net, data = model(), split(100)
    first = perplexity.measure(net, data.windows(BLOCK), 4)
    assert perplexity.measure(net, data.windows(BLOCK), 4) == first


def test_batch_size_changes_no_more_than_rounding() -> None:
    net, data = model(), split(100)
    one = perplexity.measure(net, data.windows(BLOCK), 1)
    many = perplexity.measure(net, data.windows(BLOCK), 5)
    assert one.loss_nats == pytest.approx(many.loss_nats, abs=1e-6)


def test_random_windows_are_nanogpts_draw() -> None:
    data = split(100)
    starts = torch.randint(100 - BLOCK, (7,), generator=torch.Generator().manual_seed(1337)).tolist()
    found = list(perplexity.random_windows(data, BLOCK, 7, 1337))
    assert [window.tolist() for window in found] == [data.read(start, BLOCK + 1).tolist() for start in starts]
    with pytest.raises(DataError, match="perplexity_protocol=full"):
        list(perplexity.random_windows(split(BLOCK + 1), BLOCK, 1, 1337))


def test_standard_error_covers_correlated_tokens() -> None:
    """Tokens of a window share a common part: the error over tokens would be four times too small."""
    generator = np.random.default_rng(9)
    lengths = np.full(200, 16)
    means, errors = [], []
    for _ in range(300):
        window_means = 3 + generator.normal(0, 1, 200) + generator.normal(0, 1, (200, 16)).mean(1)
        found = perplexity.summarise(window_means * lengths, lengths)
        means.append(found.loss_nats)
        errors.append(found.standard_error_nats)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_one_window_has_no_error_and_no_bits_without_bytes() -> None:
    found = perplexity.measure(model(), split(10).windows(BLOCK), 4)
    config = compose(["model=demo_kraken_4way"])
    result = perplexity.make_result(config, model(), {"splits": {"val": {"text_bytes": 36}}}, found)
    assert result.standard_error_nats is None
    assert result.bits_per_byte == pytest.approx(found.loss_nats * 9 / math.log(2) / 36)
    assert perplexity.make_result(config, model(), {"splits": {"val": {}}}, found).bits_per_byte is None
    random = compose(["model=demo_kraken_4way", "evaluation.perplexity_protocol=random_windows"])
    assert perplexity.make_result(random, model(), {"splits": {"val": {"text_bytes": 36}}}, found).bits_per_byte is None


def test_nothing_to_predict() -> None:
    with pytest.raises(DataError, match="fewer than two tokens"):
        perplexity.measure(model(), split(1).windows(BLOCK), 4)
