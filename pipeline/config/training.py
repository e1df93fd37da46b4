"""How a model is trained. Everything here changes the result; micro-batches live in cluster."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.config.group import Group, Name, Seed


class TrainingConfig(Group):
    """AdamW with warm-up and, as in the paper (section 2), a cosine decay."""

    name: Name = Field(description="name of the config file")
    steps: PositiveInt = Field(description="optimizer steps")
    global_batch_size: PositiveInt = Field(description="sequences of block_size tokens per optimizer step")
    learning_rate: PositiveFloat = Field(description="peak learning rate")
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="final over peak learning rate")
    warmup_steps: NonNegativeInt = Field(2000, description="steps of linear warm-up")
    schedule: Literal["cosine", "wsd"] = Field(
        "cosine", description="rate after warm-up: a cosine over all steps, or constant and a linear decay (wsd)"
    )
    decay_steps: NonNegativeInt | None = Field(
        None, description="wsd: steps of decay at the end; null: a fifth of all, 0: none"
    )
    weight_decay: NonNegativeFloat = Field(0.1, description="on matrices only, never on LayerNorm weights")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW beta 1")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW beta 2")
    grad_clip: NonNegativeFloat = Field(1.0, description="largest gradient norm; 0: no clipping")
    non_finite: Literal["stop", "skip"] = Field("stop", description="at a loss or gradient that is no number")
    precision: Literal["float32", "bfloat16"] = Field("bfloat16", description="arithmetic of forward and backward")
    seed: Seed = Field(1337, description="seed of the initial weights and of the sampler")
    eval_interval: PositiveInt = Field(1000, description="steps between validation estimates")
    eval_windows: PositiveInt = Field(400, description="validation windows of block_size per estimate")
    sample_tokens: NonNegativeInt = Field(48, description="tokens of the text sample at each validation; 0: none")
    branch_from: str | None = Field(
        None,
        description="a checkpoint's folder, or a run's: begin with its weights, moments and step; null: at step 0",
        min_length=1,
    )

    @property
    def decay_start(self) -> int:
        """The first step at which the rate falls, counted from 0."""
        if self.schedule == "cosine":
            return self.warmup_steps
        decay = self.steps // 5 if self.decay_steps is None else self.decay_steps
        return max(self.warmup_steps, self.steps - decay)

    @model_validator(mode="after")
    def check_decay(self) -> "TrainingConfig":
        """Warm-up and decay have room."""
        decay = self.decay_steps or 0
        most = self.steps - self.warmup_steps
        if self.schedule == "wsd" and decay > most >= 0:
            raise ValueError(
                f"decay_steps={decay}: with training.warmup_steps={self.warmup_steps} more than training.steps="
                f"{self.steps}; at most {most} would fit"
            )
        return self
