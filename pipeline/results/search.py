"""What a search of recipes tried, found and cost."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result, Row, Typed


class Rung(Typed):
    """A trial at one of the times where the search may stop it."""

    tokens: int = Field(description="training tokens seen")
    loss_nats: float = Field(description="validation loss, nats a token")


class SearchTrial(Row):
    """One recipe of one arm."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    learning_rate: float = Field(description="peak learning rate")
    init_std: float = Field(description="standard deviation of the initial weights")
    outcome: Literal["finished", "stopped", "diverged"] = Field(
        description="ran to the end, was stopped by the search, or met a loss or gradient that is no number"
    )
    rungs: list[Rung] = Field(description="what it reached")
    loss_nats: float | None = Field(description="validation loss at the end; null where it was not reached")
    tokens: int = Field(description="training tokens it took")
    flops: float = Field(description="training FLOPs it took, counted")
    seconds: float = Field(description="wall seconds of its steps and validations")
    run: str = Field(description="names the run: model, settings, tokens and code")


class FoundRecipe(Typed):
    """What the search found best for an arm at a size."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    learning_rate: float = Field(description="peak learning rate")
    init_std: float = Field(description="standard deviation of the initial weights")
    loss_nats: float = Field(description="validation loss of that trial, nats a token")
    at_edge: bool = Field(
        description="whether a rate next to it was not tried at its scale: a better one may lie there"
    )


class SearchCost(Typed):
    """All trials together."""

    trials: int = Field(description="begun")
    diverged: int = Field(description="of these, those that met a loss or gradient that is no number")
    stopped: int = Field(description="of these, those that the search stopped")
    tokens: int = Field(description="training tokens")
    flops: float = Field(description="training FLOPs, counted")
    seconds: float = Field(description="the trials' wall seconds added up; several run side by side")


class SearchResult(Result):
    """search.json: the recipes a study trains with, and every trial behind them."""

    file_name: ClassVar[str] = "results/<scale>/<study>/search.json"
    command: ClassVar[str] = "python -m stages.search_recipes +experiment=NAME"
    schema_name: Literal["search"] = "search"
    schema_version: Literal[1] = 1
    study: str = Field(description="name of the study")
    scale: str = Field(description="demo, cpu, small_gpu or paper")
    method: str = Field(description="how trials were chosen and stopped")
    learning_rates: list[float] = Field(description="rates of the space, before it was extended")
    init_stds: list[float] = Field(description="initial scales of the space")
    search_tokens: int = Field(description="tokens of a trial that is not stopped")
    seed: int = Field(description="of every trial: initial weights and order of the tokens")
    trials: list[SearchTrial] = Field(description="every trial")
    recipes: list[FoundRecipe] = Field(description="the best of each arm at each searched size")
    cost: SearchCost = Field(description="of all trials")
