"""What a training run took and where it ended."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result, Typed
from pipeline.results.kinds import Kind


class CurvePoint(Typed):
    """Training at one logged step."""

    step: int = Field(description="optimizer steps taken")
    loss_nats: float = Field(description="training loss of the step's batch, nats a token")
    learning_rate: float = Field(description="learning rate of the step")
    gradient_norm: float = Field(description="norm of the gradient before clipping")
    tokens_per_s: float = Field(description="since the logged step before")


class ValidationPoint(Typed):
    """Loss on validation windows at one step."""

    step: int = Field(description="optimizer steps taken")
    loss_nats: float = Field(description="nats a token")


class TextSample(Typed):
    """What the model wrote at one step."""

    step: int = Field(description="optimizer steps taken")
    text: str = Field(description="a continuation drawn from the 50 likeliest tokens at temperature 0.8")


class Adopted(Typed):
    """Steps taken over from a run that did the same up to there."""

    fingerprint: str = Field(description="that run's")
    step: int = Field(description="the last of its steps that count")


class Branched(Adopted):
    """The checkpoint of another run that this one began with."""

    digest: str = Field(description="names the checkpoint's content")


class TrainingResult(Result):
    """training.json: one finished run, from its own log."""

    file_name: ClassVar[str] = "results/<scale>/<model>/training.json"
    command: ClassVar[str] = "python -m stages.train model=NAME"
    schema_name: Literal["training"] = "training"
    schema_version: Literal[3] = 3
    kind: Kind = Field(description="where the numbers come from")
    model: str = Field(description="model config")
    architecture: str = Field(description="architecture")
    scale: str = Field(description="demo, small_gpu or paper")
    parameters: int = Field(description="exact number of parameters")
    shape: dict[str, Any] = Field(description="the model's identity: its config without name and recipe")
    run_fingerprint: str = Field(description="names the run: configuration and tokens")
    steps: int = Field(description="optimizer steps, adopted ones and those before a branch included")
    adopted: Adopted | None = Field(None, description="the run that this one extends; null: none")
    branched: Branched | None = Field(None, description="what this run began with; null: initial weights")
    skipped_steps: int = Field(description="of these, steps left out for a loss or gradient that was no number")
    tokens: int = Field(description="tokens seen, those of skipped steps included")
    train_loss_nats: float = Field(description="training loss of the last logged step, nats a token")
    val_loss_nats: float = Field(description="last validation loss, nats a token")
    unigram_loss_nats: float = Field(description="loss of a unigram model of the same text, nats a token")
    tokens_per_s_median: float = Field(description="median over logged steps")
    stepping_s: float = Field(
        description="seconds in optimizer steps: adopted ones count, those before a branch do not"
    )
    wall_s: float = Field(description="seconds of the same steps, validation and checkpoints included")
    mfu: float | None = Field(description="share of peak_flops reached at the end; null: peak unknown")
    peak_flops: float | None = Field(description="all ranks' peak FLOP/s, from conf/hardware; null: unknown")
    peak_memory_bytes: int = Field(description="the most that one rank took")
    ranks: int = Field(description="processes that took the last logged step together")
    tp_size: int = Field(description="of these, those that held one copy of the model")
    fsdp: bool = Field(description="whether a copy's state was cut over the others")
    device_kind: str = Field(description="cpu or cuda")
    curve: list[CurvePoint] = Field(description="every logged step")
    validation: list[ValidationPoint] = Field(
        description="at every eval_interval; of adopted steps, as far as that run validated there"
    )
    samples: list[TextSample] = Field(description="texts written on the way")
