"""The chunked loss against torch's own cross-entropy of whole logits, and the memory it is there to save."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.config import ModelConfig
from pipeline.models import build_model
from pipeline.training import loss as loss_file
from pipeline.training.loss import LossModule, summed_cross_entropy

VOCAB, WIDTH = 211, 24
ROWS_A_CHUNK = 32


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setitem(loss_file.CHUNK_BYTES, "cpu", ROWS_A_CHUNK * VOCAB * 4 + 100)


def inputs(rows: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCAB, WIDTH, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, VOCAB, (rows,), generator=generator)


def whole(hidden, weight, targets):
    logits = F.linear(hidden, weight)
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets, reduction="sum")


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 97, 320])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_loss_and_gradients_are_those_of_whole_logits(rows, dtype, tolerance):
    hidden, weight, targets = inputs(rows, dtype)
    expected = whole(hidden, weight, targets)
    found = summed_cross_entropy(hidden, weight, targets)
    assert found.dtype == dtype and found.shape == ()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=0)
    wanted = torch.autograd.grad(expected * 0.25, (hidden, weight))
    for ours, theirs in zip(torch.autograd.grad(found * 0.25, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_a_scale_is_a_factor_of_loss_and_gradients():
    hidden, weight, targets = inputs(70)
    scaled = summed_cross_entropy(hidden, weight, targets, 1 / 70)
    expected = F.cross_entropy(F.linear(hidden, weight), targets)  # the mean
    torch.testing.assert_close(scaled, expected)
    for ours, theirs in zip(
        torch.autograd.grad(scaled, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_bfloat16_is_no_coarser_than_autocast_of_whole_logits():
    hidden, weight, targets = inputs(150)
    exact = torch.autograd.grad(whole(hidden, weight, targets), (hidden, weight))
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = whole(hidden, weight, targets), summed_cross_entropy(hidden, weight, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    plain = torch.autograd.grad(expected, (hidden, weight))
    for ours, theirs, true in zip(torch.autograd.grad(found, (hidden, weight)), plain, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - true).norm() < 1.1 * (theirs - true).norm()


def test_losses_beyond_the_range_of_exp_stay_exact():
    hidden, weight, targets = inputs(40)
    expected = whole(100 * hidden, weight, targets)
    assert float(expected.detach()) / 40 > 200  # e^-200 is no float32
    torch.testing.assert_close(summed_cross_entropy(100 * hidden, weight, targets), expected)


def test_compiled_without_a_break_it_is_the_same():
    hidden, weight, targets = inputs(70)
    compiled = torch.compile(summed_cross_entropy, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(summed_cross_entropy(hidden, weight, targets), (hidden, weight))
    for ours, theirs in zip(
        torch.autograd.grad(compiled(hidden, weight, targets), (hidden, weight)), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_head_is_tied_and_the_module_returns_the_mean():
    model = build_model(
        ModelConfig(
            name="m", architecture="kraken", n_layer=1, n_head=4, n_ways=4, n_embd=16, block_size=32, vocab_size=VOCAB
        )
    )
    windows = torch.randint(0, VOCAB, (3, 18))
    logits = model(windows[:, :-1])
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    parameters = dict(model.named_parameters())
    wanted = torch.autograd.grad(expected, list(parameters.values()))
    module = LossModule(model)
    torch.testing.assert_close(module(windows), expected)
    torch.testing.assert_close(module(windows, 0.5), expected / 2)
    for name, ours, theirs in zip(
        parameters, torch.autograd.grad(module(windows), list(parameters.values())), wanted, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


class Sizes(TorchDispatchMode):
    """The numbers of the largest tensor, and the operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.operations = 0, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        self.operations.append(str(operation))
        if isinstance(made, torch.Tensor):
            self.largest = max(self.largest, made.numel())
        return made


def test_whole_logits_never_stand_and_the_head_is_multiplied_three_times():
    hidden, weight, targets = inputs(320)
    with Sizes() as sizes:
        summed_cross_entropy(hidden, weight, targets).backward()
    assert sizes.largest <= max(ROWS_A_CHUNK * VOCAB, hidden.numel(), weight.numel())
    assert sum("mm" in operation for operation in sizes.operations) == 3 * 320 / ROWS_A_CHUNK


def test_without_gradients_none_are_computed():
    hidden, weight, targets = inputs(64)
    with torch.no_grad(), Sizes() as sizes:
        found = summed_cross_entropy(hidden, weight, targets)
    assert not found.requires_grad
    assert sum("mm" in operation for operation in sizes.operations) == 64 / ROWS_A_CHUNK
    torch.testing.assert_close(found, whole(hidden, weight, targets).detach())


def test_a_gradient_that_nobody_wants_is_not_computed():
    hidden, weight, targets = inputs(64)
    with Sizes() as sizes:
        summed_cross_entropy(hidden, weight.detach(), targets).backward()
    assert sum("mm" in operation for operation in sizes.operations) == 2 * 64 / ROWS_A_CHUNK


def test_a_second_derivative_is_refused():
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(16, 8)
    loss = summed_cross_entropy(hidden, weight, torch.arange(4)) ** 2
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_autocast_leaves_float64_alone():
    hidden, weight, targets = torch.randn(4, 8).double(), torch.randn(16, 8).double(), torch.arange(4)
    plain = summed_cross_entropy(hidden, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(summed_cross_entropy(hidden, weight, targets), plain) and plain.dtype == torch.float64
