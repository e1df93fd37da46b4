"""Ladder, Desync and Parallel Track against naive, rank-by-rank implementations."""

import pytest
import torch
import torch.nn.functional as F

from tests.unit import naive_neighbours as naive
from tests.unit.test_models import TOKENS, config, perturbed


def reference(model, n_ranks):
    c, state = model.config, dict(model.named_parameters())
    if c.architecture == "ladder":
        return naive.ladder_logits(state, TOKENS, c.n_layer, c.n_head, n_ranks, c.layer_norm_eps)
    if c.architecture == "parallel_track":
        shape = (c.n_layer, c.n_ways, c.heads_per_way, c.track_depth)
        return naive.parallel_track_logits(state, TOKENS, *shape, c.layer_norm_eps)
    return naive.desync_logits(state, TOKENS, c.n_layer, c.n_ways, c.heads_per_way, c.layer_norm_eps)


@pytest.mark.parametrize(
    ("case", "n_ranks"),
    [
        (config("ladder"), 1),
        (config("ladder"), 2),
        (config("ladder"), 4),
        (config("desync", 1), 1),
        (config("desync", 2), 2),
        (config("desync", 4), 4),
        (config("parallel_track", 4), 4),
        (config("parallel_track", 2, track_depth=2), 2),  # three layers: the last meeting is off the beat
        (config("parallel_track", 4, track_depth=8), 4),
    ],
    ids=lambda value: getattr(value, "architecture", value),
)
def test_logits_and_gradients_agree_with_the_naive_algorithm(case, n_ranks):
    model = perturbed(case).double()
    logits = model(torch.tensor([TOKENS]))[0]
    expected = reference(model, n_ranks)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)

    targets = torch.tensor([*TOKENS[1:], 1])
    ours = torch.autograd.grad(F.cross_entropy(logits, targets), list(model.parameters()))
    theirs = torch.autograd.grad(F.cross_entropy(expected, targets), list(model.parameters()))
    for (name, _), a, b in zip(model.named_parameters(), ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def test_ladder_and_standard_differ():
    """Guards the reference itself: the same weights wired the standard way give other logits."""
    ladder, standard = perturbed(config("ladder")), perturbed(config("standard"))
    standard.load_state_dict(ladder.state_dict())
    tokens = torch.tensor([TOKENS])
    assert (ladder(tokens) - standard(tokens)).abs().max() > 0.01
