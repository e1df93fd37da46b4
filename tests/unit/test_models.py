"""The models against independent, naive implementations, and the paper's own counts."""

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import Placement, architectures, build_model, local_shape
from pipeline.models.initialise import is_layer_norm
from pipeline.models.layers import GELU_CHUNK, FeedForward, gelu, overwrite_with_gelu
from tests.unit import naive_models as naive

TOKENS = [5, 3, 60, 0, 17, 17, 2, 33, 9]


def config(architecture: str, n_ways: int = 1, **changes) -> ModelConfig:
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 24, "block_size": 16, "vocab_size": 64} | changes
    expansion = 2 if architecture == "kraken" else 4
    return ModelConfig(name="test", architecture=architecture, n_ways=n_ways, ffn_expansion=expansion, **shape)


def perturbed(model_config: ModelConfig, seed: int = 3):
    """A model none of whose weights has a special value: LayerNorms off one, biases off zero."""
    model = build_model(model_config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def reference(model, tokens):
    c, state = model.config, dict(model.named_parameters())
    if c.architecture == "kraken":
        shape = (c.n_layer, c.n_ways, c.heads_per_way, c.layer_norm_eps, c.mixing, c.mixes_first_layer)
        return naive.kraken_logits(state, tokens, *shape)
    function = {"standard": naive.standard_logits, "parallel": naive.parallel_logits}[c.architecture]
    return function(state, tokens, c.n_layer, c.n_head, c.layer_norm_eps)


def test_the_split_schedule_is_the_standard_model():
    """The same weights by the same names, the same logits and gradients, whatever the length of the chunks."""
    standard, split = perturbed(config("standard", bias=True)), build_model(config("standard_split", bias=True))
    split.load_state_dict(standard.state_dict())
    for length in (1, 2, 8, 9):
        tokens = torch.tensor([TOKENS[:length], TOKENS[::-1][:length]])
        torch.testing.assert_close(split(tokens), standard(tokens), atol=1e-5, rtol=0)
    losses = [model(torch.tensor([TOKENS])).logsumexp(-1).sum() for model in (standard, split)]
    ours, theirs = (
        torch.autograd.grad(loss, list(m.parameters())) for loss, m in zip(losses, (standard, split), strict=True)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


CASES = [
    config("kraken", 4),
    config("kraken", 2),
    config("kraken", 1, n_head=2),
    config("standard"),
    config("standard", bias=True),
    config("parallel"),
    config("parallel", bias=True),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.architecture}-{c.n_ways}-{c.bias}")
def test_logits_and_gradients_agree_with_the_naive_algorithm(case):
    model = perturbed(case).double()
    logits = model(torch.tensor([TOKENS]))[0]
    expected = reference(model, TOKENS)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    targets = torch.tensor([*TOKENS[1:], 1])
    names = [name for name, _ in model.named_parameters()]
    ours = torch.autograd.grad(F.cross_entropy(logits, targets), list(model.parameters()))
    theirs = torch.autograd.grad(F.cross_entropy(expected, targets), list(model.parameters()))
    for name, a, b in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_float32_agrees_too():
    model = perturbed(config("kraken", 4))
    torch.testing.assert_close(model(torch.tensor([TOKENS]))[0], reference(model, TOKENS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_layer", "n_ways", "n_embd", "n_head", "parameters"),
    [
        (12, 2, 678, 12, 124_012_302),
        (12, 4, 504, 12, 124_476_408),
        (12, 6, 418, 12, 123_205_082),
        (24, 2, 888, 16, 350_043_384),
        (24, 4, 644, 16, 353_355_716),
        (24, 4, 960, 16, 760_935_360),
    ],
)
def test_parameter_counts_are_the_papers(n_layer, n_ways, n_embd, n_head, parameters):
    shape = config("kraken", n_ways, n_layer=n_layer, n_embd=n_embd, n_head=n_head, block_size=1024, vocab_size=50304)
    model = build_model(shape, seed=None, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_sum_of_the_ways_never_enters_a_residual_stream():
    """With FFN outputs at zero, a way's stream is its own: other ways cannot change it."""
    model = perturbed(config("kraken", 2, n_layer=3))
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.down.weight.zero_()
        model.concat.project.weight[1].zero_()  # read way 0 only
        before = model(torch.tensor([TOKENS]))
        for block in model.blocks:
            block.attn.out.weight[1].mul_(7.0)  # change way 1's stream
        after = model(torch.tensor([TOKENS]))
    torch.testing.assert_close(before, after, atol=0, rtol=0)


def test_initial_weights_have_the_papers_spread():
    shape = config("kraken", 4, n_layer=12, n_embd=64, n_head=4)
    model = build_model(shape, seed=1)
    for name, parameter in model.named_parameters():
        if is_layer_norm(name):
            assert torch.equal(parameter, torch.ones_like(parameter))
            continue
        residual = name.endswith(("attn.out.weight", "mlp.down.weight"))
        expected = 0.02 / math.sqrt(2 * 12 * 4) if residual else 0.02
        tolerance = 5 * expected / math.sqrt(2 * parameter.numel())
        assert abs(parameter.std().item() - expected) < tolerance, name
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel()), name


def test_kraken_starts_from_the_same_numbers_in_any_placement():
    shape = config("kraken", 4)
    whole = build_model(shape, seed=11).state_dict()
    for tp_size in (2, 4):
        for rank in range(tp_size):
            part = build_model(shape, Placement(rank, tp_size), seed=11).state_dict()
            n_ways = 4 // tp_size
            name = "blocks.1.attn.qkv.weight"
            assert torch.equal(part[name], whole[name][rank * n_ways : (rank + 1) * n_ways])


@pytest.mark.parametrize("architecture", architectures.names())
def test_a_cache_changes_nothing(architecture):
    model = perturbed(config(architecture, 1 if architectures.block_of(architecture).ways == "none" else 4))
    tokens = torch.tensor([TOKENS, TOKENS[::-1]])
    expected = model(tokens)
    cache = model.new_cache(batch_size=2)
    parts = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 6), (6, 9))]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["standard", "kraken"])
def test_a_repeated_cache_serves_several_continuations(architecture):
    model = perturbed(config(architecture, 2 if architecture == "kraken" else 1))
    prefix = torch.tensor([TOKENS[:5], TOKENS[4:9]])
    endings = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])
    cache = model.new_cache(2, capacity=5)
    model(prefix, cache=cache)
    shared = model(endings, cache=cache.select(torch.tensor([0, 0, 1, 1]), capacity=7))
    alone = model(torch.cat([prefix.repeat_interleave(2, 0), endings], dim=1))[:, 5:]
    torch.testing.assert_close(shared, alone, atol=2e-5, rtol=1e-5)


def test_last_only_is_the_last_position():
    model = perturbed(config("kraken", 4))
    tokens = torch.tensor([TOKENS])
    torch.testing.assert_close(model(tokens, last_only=True), model(tokens)[:, -1:], atol=1e-6, rtol=1e-6)


def test_a_context_beyond_block_size_is_refused():
    with pytest.raises(ValueError, match="block_size is 16"):
        build_model(config("standard"))(torch.zeros(1, 17, dtype=torch.long))


def test_ranks_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="tp_size=3"):
        local_shape(config("kraken", 4), Placement(0, 3))
    with pytest.raises(ConfigError, match="tp_size=3"):
        local_shape(config("standard"), Placement(0, 3))


def test_gelu_without_gradients_is_the_tanh_approximation():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4])])  # (4006,)
    wide = x.double()
    expected = 0.5 * wide * (1 + torch.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    torch.testing.assert_close(overwrite_with_gelu(x[None].clone())[0].double(), expected, atol=1e-6, rtol=1e-6)
    learned = x.clone().requires_grad_()
    torch.testing.assert_close(gelu(learned).double(), expected, atol=1e-6, rtol=1e-6)
    gelu(learned).sum().backward()
    assert torch.isfinite(learned.grad).all()


@pytest.mark.parametrize(("n_ways", "bias"), [(1, True), (1, False), (3, True), (3, False)])
@pytest.mark.parametrize("rows", [1, 7, 3 * GELU_CHUNK // 40])
def test_a_feed_forward_without_gradients_is_the_one_with_them(n_ways, bias, rows):
    """There the bias and GELU overwrite the product in chunks; what is read stays as it was."""
    generator = torch.Generator().manual_seed(5)
    ffn = FeedForward(n_ways, 6, 40, bias)
    for parameter in ffn.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    x = torch.randn(n_ways, 1, rows, 6, generator=generator)
    kept, expected = x.clone(), ffn(x)
    with torch.inference_mode():
        found = ffn(x)
    assert torch.equal(x, kept)
    torch.testing.assert_close(found, expected.detach(), atol=1e-4, rtol=1e-5)
