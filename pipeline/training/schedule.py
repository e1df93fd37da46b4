"""The learning rate: linear warm-up, then a cosine to a share of the peak (paper section 2)."""

import math

from pipeline.config.training import TrainingConfig


def learning_rate(step: int, training: TrainingConfig) -> float:
    """The rate of optimizer step `step`, counted from 0; the last step ends near the floor."""
    peak, floor = training.learning_rate, training.learning_rate * training.min_learning_rate_ratio
    if step < training.warmup_steps:
        return peak * (step + 1) / (training.warmup_steps + 1)
    progress = min(1.0, (step - training.warmup_steps) / max(1, training.steps - training.warmup_steps))
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))
