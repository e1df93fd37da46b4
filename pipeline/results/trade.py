"""Loss against Time To First Token: whether a faster, worse model beats a smaller standard one."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result, Row, Typed
from pipeline.results.quality import Estimate

TimeKind = Literal["measured", "measured compute, modelled communication", "projected"]


class TradeRow(Row):
    """One arm at one size: its loss at the central token count, and its TTFT, measured or projected (`kind`)."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    loss_nats: Estimate = Field(description="validation loss over seeds at the central token count")
    ttft_ms: Estimate = Field(description="median; the interval is of the rounds where measured, null where projected")
    speedup: float = Field(description="standard time of the same size over this one, minus 1")
    standard_loss_nats: float | None = Field(
        description="loss of a standard model of this very TTFT, on the line between the measured sizes in log TTFT; "
        "null outside of them"
    )
    gain_nats: Estimate | None = Field(
        description="that minus this arm's loss: above 0, the arm is the better model of its speed; its 95% interval "
        "holds the scatter of seeds and of rounds; null as above, and for the baseline"
    )


class TradeSetting(Typed):
    """Where the times of one kind come from."""

    kind: TimeKind = Field(description="of the times")
    where: str = Field(description="ranks and link measured over, or hardware projected for")
    tp_size: int = Field(description="ranks")
    context: int = Field(description="prompt tokens")
    batch_size: int = Field(description="prompts")


class TradeResult(Result):
    """trade.json: loss against TTFT of every arm at every size."""

    file_name: ClassVar[str] = "results/<scale>/<study>/trade.json"
    command: ClassVar[str] = "python -m stages.weigh_speed +experiment=NAME"
    schema_name: Literal["trade"] = "trade"
    schema_version: Literal[1] = 1
    study: str = Field(description="name of the study")
    scale: str = Field(description="demo, cpu, small_gpu or paper")
    central_tokens: int = Field(description="training tokens of the losses")
    settings: list[TradeSetting] = Field(description="one for the measured, one for the projected times")
    rows: list[TradeRow] = Field(description="every arm at every size, measured and projected")
    verdict: str = Field(description="whether a faster, worse model beats a smaller standard one, in a sentence a kind")
