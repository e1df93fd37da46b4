"""The learning rate: linear warm-up, then a cosine to a share of the peak (paper section 2), or a plateau and a decay.

The plateau (warm-up, stable, decay: WSD) does not depend on how many steps follow: such a run can be extended.
"""

import math

from pipeline.config.training import TrainingConfig


def learning_rate(step: int, training: TrainingConfig) -> float:
    """The rate of optimizer step `step`, counted from 0; the last step ends near the floor."""
    peak, floor = training.learning_rate, training.learning_rate * training.min_learning_rate_ratio
    if step < training.warmup_steps:
        return peak * (step + 1) / (training.warmup_steps + 1)
    start = training.decay_start
    progress = min(1.0, max(0, step - start) / max(1, training.steps - start))
    if training.schedule == "wsd":
        return peak - (peak - floor) * progress
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))


def parting(one: TrainingConfig, other: TrainingConfig, since: int = 0) -> int:
    """The first step from `since` on at which the rates of two runs differ, or the end of the shorter one."""
    end = min(one.steps, other.steps)
    return next((at for at in range(since, end) if learning_rate(at, one) != learning_rate(at, other)), end)


def milestones(training: TrainingConfig) -> set[int]:
    """Steps whose checkpoint is worth keeping for good: where a plateau ends, from which a longer run goes on."""
    start = training.decay_start
    return {start} if training.schedule == "wsd" and 0 < start < training.steps else set()
