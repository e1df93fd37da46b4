"""Published values that ours are shown beside."""

from pydantic import Field

from pipeline.config.group import Group, Name


class PublishedTtft(Group):
    """Milliseconds of one size, context and number of ranks (paper Tables 6 and 7)."""

    size: str = Field(description="label of the row, as 1.3B")
    context: int = Field(description="prompt length in tokens")
    tp_size: int = Field(description="ranks")
    standard_ms: float = Field(description="standard Transformer")
    parallel_ms: float = Field(description="parallel attention+FFN")
    kraken_ms: float = Field(description="Kraken")


class ReferenceConfig(Group):
    """One publication's numbers, quoted."""

    name: Name = Field(description="name of the config file")
    source: str = Field(description="the publication")
    validation_loss_nats: dict[str, float] = Field(description="public checkpoints on OpenWebText's validation split")
    superglue_3shot: dict[str, dict[str, float]] = Field(description="score in percent by row and task (Table 3)")
    superglue_rows: dict[str, str] = Field(description="our model config to the published row's name")
    ttft: list[PublishedTtft] = Field(description="Tables 6 and 7")
    ttft_hardware: str = Field(description="hardware config of the machine behind `ttft`")
    ttft_benchmark: str = Field(description="benchmark config with the shapes of `ttft`")
    ttft_headline_geomean: float = Field(description="geometric mean speedup of Kraken over standard")
