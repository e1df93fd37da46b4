"""How well a model predicts held-out text."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result
from pipeline.results.kinds import Kind


class PerplexityResult(Result):
    """perplexity.json: loss on the validation split, windows being the units of its error."""

    file_name: ClassVar[str] = "results/<scale>/<model>/perplexity.json"
    command: ClassVar[str] = "python -m stages.evaluate_perplexity model=NAME"
    schema_name: Literal["perplexity"] = "perplexity"
    schema_version: Literal[1] = 1
    kind: Kind = Field(description="where the numbers come from")
    model: str = Field(description="model config")
    architecture: str = Field(description="architecture")
    parameters: int = Field(description="exact number of parameters")
    scale: str = Field(description="demo, small_gpu or paper")
    data: str = Field(description="data config")
    protocol: str = Field(description="full: every token once; random_windows: windows at random starts")
    seed: int | None = Field(description="of random windows")
    block_size: int = Field(description="tokens a window")
    loss_nats: float = Field(description="mean nats a token")
    standard_error_nats: float | None = Field(description="of loss_nats; null for a single window")
    perplexity: float = Field(description="exp(loss_nats)")
    standard_error_perplexity: float | None = Field(description="of perplexity; null for a single window")
    bits_per_byte: float | None = Field(description="of the whole split's text; null for random windows")
    tokens: int = Field(description="tokens predicted")
    windows: int = Field(description="windows scored")
    unigram_loss_nats: float | None = Field(description="loss of a unigram model of the same text, nats a token")
