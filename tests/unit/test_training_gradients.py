"""Training's own arithmetic (GELU, LayerNorm a way, sliced weights) against plain float64 and naive models."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.config import ModelConfig
from pipeline.models import build_model
from pipeline.models.layers import GELU_CHUNK, WayLayerNorm, gelu
from pipeline.training.loss import LossModule
from tests.unit.naive_models import kraken_logits, parallel_logits, standard_logits

EPS = 1e-5


@pytest.mark.parametrize("shape", [(), (1,), (3, 7, 5), (2, GELU_CHUNK - 1), (GELU_CHUNK + 1,), (5, GELU_CHUNK)])
def test_gelu_and_its_derivative(shape):
    generator = torch.Generator().manual_seed(3)
    x = (3 * torch.randn(shape, generator=generator)).requires_grad_()
    above = torch.randn(shape, generator=generator)
    wide = x.detach().double().requires_grad_()
    expected = F.gelu(wide, approximate="tanh")
    expected.backward(above.double())
    gelu(x).backward(above)
    torch.testing.assert_close(gelu(x).double(), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-6, atol=1e-5)


def test_gelu_far_out_is_the_identity_or_nothing():
    x = torch.tensor([-1e12, -1e4, -60.0, 60.0, 1e4, 1e12], requires_grad=True)
    gelu(x).sum().backward()
    assert gelu(x).tolist() == F.gelu(x, approximate="tanh").tolist()
    assert x.grad.tolist() == [0, 0, 0, 1, 1, 1]


def test_gelu_of_a_slice_that_is_not_contiguous():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gelu(x.t()[1:]).sum().backward()
    (expected,) = torch.autograd.grad(F.gelu(x.t()[1:], approximate="tanh").sum(), x)
    torch.testing.assert_close(x.grad, expected)


def test_gelu_refuses_a_second_backward():
    x = torch.randn(9, requires_grad=True)
    y = gelu(x).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("streams", [1, 3], ids=["shared", "own"])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_of_every_way(streams, bias):
    norm = WayLayerNorm(3, 20, EPS, bias)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_(generator=generator)
    x = torch.randn(streams, 2, 5, 20, generator=generator, requires_grad=True)
    above = torch.randn(3, 2, 5, 20, generator=generator)
    wide = x.detach().double().requires_grad_()
    weights = [parameter.detach().double().requires_grad_() for parameter in norm.parameters()]
    centred = wide - wide.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * weights[0][:, None, None]
    if bias:
        expected = expected + weights[1][:, None, None]
    found = norm(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    wanted = torch.autograd.grad(expected, [wide, *weights], above.double())
    for ours, theirs in zip(torch.autograd.grad(found, [x, *norm.parameters()], above), wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def naive_logits(config, state, tokens):
    if config.architecture == "kraken":
        return kraken_logits(state, tokens, config.n_layer, config.n_ways, config.n_head // config.n_ways, EPS)
    one = standard_logits if config.architecture == "standard" else parallel_logits
    return one(state, tokens, config.n_layer, config.n_head, EPS)


@pytest.mark.parametrize(
    ("architecture", "n_ways", "bias"),
    [("standard", 1, False), ("standard", 1, True), ("parallel", 1, False), ("kraken", 4, False)],
)
def test_every_gradient_of_a_model_is_the_naive_ones(architecture, n_ways, bias):
    config = ModelConfig(
        name="m", architecture=architecture, n_layer=3, n_head=4, n_embd=16, n_ways=n_ways, block_size=12,
        vocab_size=97, bias=bias, layer_norm_eps=EPS,
    )  # fmt: skip
    model = build_model(config, seed=2)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():  # gains, biases and projections as if trained
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    windows = torch.randint(0, 97, (2, 13), generator=generator)
    state = {name: one.detach().double().requires_grad_() for name, one in model.named_parameters()}
    logits = torch.stack([naive_logits(config, state, row[:-1].tolist()) for row in windows])
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    wanted = torch.autograd.grad(expected, list(state.values()))
    loss = LossModule(model)(windows)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    loss.backward()
    for (name, parameter), theirs in zip(model.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(
            parameter.grad.double(), theirs, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )
