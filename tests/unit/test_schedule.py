"""Learning rates against values made by hand, and what can be extended."""

import math

import pytest

from pipeline.compose import compose
from pipeline.training.schedule import learning_rate, milestones, parting

PLATEAU = ["training.schedule=wsd", "training.learning_rate=1.0", "training.warmup_steps=4"]


def training(*overrides: str):
    return compose(list(overrides)).training


def rates(settings) -> list[float]:
    return [learning_rate(step, settings) for step in range(settings.steps)]


def test_a_cosine_is_the_paper_s():
    settings = training("scale=paper")
    for step in (0, 1, 1999, 2000, 2001, 77_777, 299_999):
        if step < 2000:
            expected = 2.5e-4 * (step + 1) / 2001
        else:
            angle = math.pi * (step - 2000) / 298_000
            expected = 2.5e-5 + 0.5 * (2.5e-4 - 2.5e-5) * (1 + math.cos(angle))
        assert learning_rate(step, settings) == expected


def test_a_plateau_ends_in_a_line_to_the_floor():
    settings = training(*PLATEAU, "training.steps=20", "training.decay_steps=5")
    line = [1.0, 0.82, 0.64, 0.46, 0.28]
    assert rates(settings) == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 11, *line])
    assert learning_rate(20, settings) == pytest.approx(0.1)
    assert milestones(settings) == {15}
    ends_at_zero = training(*PLATEAU, "training.steps=20", "training.min_learning_rate_ratio=0")
    assert rates(ends_at_zero)[15:] == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.25])  # a fifth of all steps


def test_without_a_decay_nothing_is_a_milestone():
    settings = training(*PLATEAU, "training.steps=20", "training.decay_steps=0")
    assert rates(settings)[4:] == [1.0] * 16
    assert milestones(settings) == milestones(training("training.steps=200")) == set()


def test_a_plateau_s_past_does_not_depend_on_what_follows():
    short, long = (training(*PLATEAU, f"training.steps={steps}") for steps in (100, 200))
    assert parting(short, long) == 81  # 80 is the first step of the decay, still at the peak
    assert rates(short)[:81] == rates(long)[:81] and rates(short)[81] != rates(long)[81]
    cosines = [training("training.warmup_steps=4", f"training.steps={steps}") for steps in (100, 200)]
    assert parting(*cosines) == 5  # the warm-up and the peak
    assert parting(long, training(*PLATEAU, "training.steps=200", "training.learning_rate=2.0")) == 0
    assert parting(short, training(*PLATEAU, "training.steps=50", "training.decay_steps=0")) == 50
    warmer = training(*PLATEAU, "training.steps=200", "training.warmup_steps=9")
    assert parting(long, warmer) == 0 and parting(long, warmer, since=10) == 200


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["training.decay_steps=475"], "training.decay_steps=475: with training.warmup_steps=50 .* at most 450"),
        (["training.schedule=wds"], "training.schedule='wds': must be 'cosine' or 'wsd'"),
        (["training.decay_steps=-1"], "training.decay_steps=-1: must be"),
        (["training.branch_from="], "training.branch_from='': must not be empty"),
    ],
)
def test_what_is_no_schedule_is_said_at_once(overrides, text):
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError, match=text):
        training("training.schedule=wsd", *overrides)
    assert training("training.decay_steps=475").schedule == "cosine"  # which has no decay of its own
