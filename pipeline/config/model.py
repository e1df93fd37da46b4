"""What a model is: its architecture and its shape."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from pipeline.config.group import Group, Name


class Recipe(Group):
    """How the paper trained this model (section 2 of its appendix tables), or a search found best; no part of it."""

    learning_rate: PositiveFloat = Field(2.5e-4, description="peak learning rate")
    global_batch_size: PositiveInt = Field(480, description="sequences per optimizer step")
    micro_batch_size: PositiveInt = Field(20, description="sequences per GPU pass (execution only)")
    published_a100_hours: float | None = Field(None, description="A100 hours the paper reports")


Mixing = Literal["sum", "mean", "none", "residual"]
Position = Literal["learned", "none"]
DEFAULT_RECIPE = Recipe.model_validate({})


class ModelConfig(Group):
    """A decoder-only Transformer; names are GPT-2's."""

    name: Name = Field(description="name of the config file, and of every folder made from it")
    architecture: str = Field(description="which block is stacked: a file of pipeline/models/architectures")
    n_layer: PositiveInt = Field(description="number of layers L", le=10_000)
    n_head: PositiveInt = Field(description="attention heads per layer, over all ways")
    n_embd: PositiveInt = Field(description="width d of the residual stream (of each way in Kraken)")
    head_dim: PositiveInt | None = Field(
        None, description="width of a head; null: n_embd over the heads that share it (those of a way in Kraken)"
    )
    n_ways: PositiveInt = Field(1, description="independent ways N per layer; 1 where the architecture has none")
    track_depth: PositiveInt = Field(1, description="layers between two meetings of Parallel Track's tracks, D")
    block_size: PositiveInt = Field(1024, description="longest context in tokens")
    vocab_size: PositiveInt = Field(50304, description="rows of the embedding, padding included")
    ffn_expansion: PositiveInt = Field(4, description="FFN width over n_embd: 4, or 2 in Kraken")
    bias: bool = Field(False, description="biases in linears and LayerNorms (GPT-2 checkpoints)")
    layer_norm_eps: PositiveFloat = Field(1e-5, description="epsilon of every LayerNorm")
    init_std: PositiveFloat = Field(0.02, description="standard deviation of the initial weights")
    mixing: Mixing = Field(
        "sum",
        description="what a Kraken layer makes of the ways' sum: sum (the paper) or mean into the FFN, none, or "
        "residual: the sum into the residual stream too",
    )
    mixes_first_layer: bool = Field(False, description="whether Kraken's first layer sums the ways as the others do")
    init_over_ways: bool = Field(
        True, description="Kraken's output projections start at init_std/√(2·L·N); false: at init_std/√(2·L)"
    )
    position: Position = Field("learned", description="embedding of positions; none: the model has none")
    tie_embeddings: bool = Field(True, description="the head is the token embedding; false: a weight of its own")
    recipe: Recipe = Field(default=DEFAULT_RECIPE, description="the paper's training run")

    @property
    def heads_per_way(self) -> int:
        return self.n_head // self.n_ways

    def identity(self) -> dict[str, Any]:
        """The shape alone: the recipe and the name say nothing about what the model computes."""
        return self.model_dump(
            mode="json", exclude={"recipe", "name"} | ({"head_dim"} if self.head_dim is None else set())
        )
