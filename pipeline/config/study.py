"""What a study compares: arms of equal size on the same tokens. Stands in an experiment's own file."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from pipeline.config.group import Group, Name
from pipeline.config.model import ModelConfig

FREE = (  # what an arm may say of its model; the width follows from the budget
    *("architecture", "n_ways", "track_depth", "ffn_expansion", "mixing", "mixes_first_layer", "init_over_ways"),
    *("position", "tie_embeddings"),
)


class Arm(Group):
    """One of the models that are compared, at every size."""

    model: dict[str, Any] = Field(default_factory=dict, description="what differs from the size's standard model")
    budget: Literal["all", "layers"] = Field(
        "all", description="the parameters that are the standard model's: all of them, or all but embeddings and head"
    )
    sizes: Literal["all", "central"] = Field(
        "all", description="where it is trained: at every size, or the central one"
    )
    rate_width_exponent: NonNegativeFloat = Field(
        0.0, description="away from the searched size the rate is scaled by (searched width / width) to this power"
    )
    warmup_factor: NonNegativeFloat = Field(1.0, description="warm-up, in sweep.warmup_steps")

    @field_validator("model")
    @classmethod
    def check_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Only what no size decides."""
        for name in value:
            if name not in ModelConfig.model_fields:
                raise ValueError(f"{name}: no such key of a model")
            if name not in FREE:
                raise ValueError(f"{name}: follows from the size and its budget; an arm may set {', '.join(FREE)}")
        return value


class StudyConfig(Group):
    """Arms side by side, the first being what the others are held against."""

    name: Name = Field(description="name of the experiment file, and of the results' folder")
    question: str = Field(description="what the study answers, in a line")
    baseline: Name = Field(description="the arm that the others are held against")
    arms: dict[Name, Arm] = Field(description="by name", min_length=2)
    times: bool = Field(False, description="whether the arms are timed too: loss against Time To First Token")

    @model_validator(mode="after")
    def check_baseline(self) -> "StudyConfig":
        """The baseline is an arm, at every size."""
        if self.baseline not in self.arms:
            raise ValueError(f"baseline={self.baseline}: no such arm; there are {', '.join(self.arms)}")
        if self.arms[self.baseline].sizes != "all":
            raise ValueError(f"baseline={self.baseline}: must stand at every size; set its sizes=all")
        return self
