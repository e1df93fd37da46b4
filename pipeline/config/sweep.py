"""How much a study does: sizes, tokens, seeds and the search before them."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pipeline.config.group import Group, Name, Once

Tokens = Annotated[int, Field(gt=0, le=10**15)]
Rate = Annotated[float, Field(gt=1e-12, le=1e3)]


class Size(Group):
    """The standard model that sets a size's budget."""

    model: Name = Field(description="model config")
    n_layer: PositiveInt | None = Field(None, description="layers; null: the config's")
    n_head: PositiveInt | None = Field(None, description="attention heads; null: the config's")
    n_embd: PositiveInt | None = Field(None, description="width; null: the config's")


class SweepConfig(Group):
    """A cross of sizes and token counts: all counts at the central size, all sizes at the central count."""

    name: Name = Field(description="name of the config file")
    sizes: dict[Name, Size] = Field(description="standard models by label, smallest first", min_length=1)
    tokens: Annotated[list[Tokens], Once] = Field(description="training tokens, ascending", min_length=1)
    central_size: Name = Field(description="the size that sees every token count, and where recipes are searched")
    central_tokens: PositiveInt = Field(description="the token count that every size sees")
    crossed: bool = Field(True, description="only the cross; false: every size at every count")
    warmup_steps: NonNegativeInt = Field(description="steps of linear warm-up, the same for every token count")
    n_seeds: Annotated[int, Field(ge=2, le=1000)] = Field(
        3, description="runs of a cell: seeds training.seed and those after it"
    )
    head_multiple: PositiveInt = Field(
        1, description="head sizes are multiples of it; 8 for most fused kernels on GPUs"
    )
    learning_rates: Annotated[list[Rate], Once] = Field(description="peak rates searched", min_length=1)
    init_stds: Annotated[list[Rate], Once] = Field(description="initial scales searched", min_length=1)
    search_tokens: Tokens = Field(description="tokens of a trial that the search does not stop")
    search_every_size: bool = Field(
        False, description="recipes are searched at every size, not at the central one alone"
    )
    rungs: PositiveInt = Field(3, le=20, description="times at which the search may stop a trial, the end counted")
    reduction_factor: Annotated[float, Field(gt=1, le=100)] = Field(
        2.0, description="of so many trials one passes a rung (ASHA)"
    )
    extend: NonNegativeInt = Field(2, description="rounds of trying the rates next to the best, at its scale")

    @model_validator(mode="after")
    def check_center(self) -> "SweepConfig":
        """The centers are points of the cross, and token counts ascend."""
        faults = []
        if self.central_size not in self.sizes:
            faults.append(f"central_size={self.central_size}: no such size; there are {', '.join(self.sizes)}")
        if self.central_tokens not in self.tokens:
            faults.append(f"central_tokens={self.central_tokens}: must be one of tokens={self.tokens}")
        if self.tokens != sorted(self.tokens):
            faults.append(f"tokens={self.tokens}: must ascend; {sorted(self.tokens)} does")
        if faults:
            raise ValueError("\n".join(faults))
        return self
