"""What architectures are compared within, and the forms that measured and projected times share."""

from typing import Literal

from pydantic import Field

from pipeline.config.benchmark import BASELINE as BASELINE
from pipeline.results.file import Row, Typed

BOUND = "no_communication"  # the baseline without its collectives: wrong output, right bound
NO_LINK = "none"  # the link of rows whose communication was left out: compute alone
EXACT_RIVAL = "standard_split"  # overlaps, and computes what the baseline computes

Launches = list[list[float]]  # milliseconds: one inner list a launch, one number a round
Lane = Literal["compute", "communication"]
Part = Literal["norm", "gemm", "overlapped_gemm", "attention", "elementwise", "lm_head", "all_reduce", "other"]
PARTS: tuple[Part, ...] = (
    *("norm", "gemm", "overlapped_gemm", "attention", "elementwise", "lm_head", "all_reduce", "other"),
)


class Cell(Typed):
    """What architectures are compared within."""

    size: str = Field(description="label of the models' size, as 1.3B")
    context: int = Field(description="prompt length in tokens")
    batch_size: int = Field(description="prompts per forward")
    tp_size: int = Field(description="ranks that the model is split over")
    link: str | None = Field(None, description="link between ranks; none: no communication; null: the hardware's own")


class CellRow(Cell, Row):
    """A row of one architecture in one cell."""

    architecture: str = Field(description="what was timed; no_communication is the baseline without its collectives")

    @property
    def cell(self) -> Cell:
        return Cell(**{key: getattr(self, key) for key in Cell.model_fields})


class Parts(Typed):
    """Milliseconds of a forward by kind of work; they add up to all of it."""

    norm: float = Field(0.0, description="LayerNorms, ms")
    gemm: float = Field(0.0, description="matrix products with nothing on its way, ms")
    overlapped_gemm: float = Field(0.0, description="matrix products while a collective is on its way, ms")
    attention: float = Field(0.0, description="softmax attention and its reshapes, ms")
    elementwise: float = Field(0.0, description="GELU and residual sums, where they are told from `other`, ms")
    lm_head: float = Field(0.0, description="the product with the vocabulary, ms")
    all_reduce: float = Field(0.0, description="starting and awaiting sums: communication that nothing hid, ms")
    other: float = Field(0.0, description="everything else, ms")

    @property
    def total(self) -> float:
        return float(sum(getattr(self, part) for part in PARTS))


class TimelineEvent(Typed):
    """A stretch of one lane, in milliseconds from the start of the forward."""

    lane: Lane = Field(description="compute (the main thread or stream) or communication")
    part: Part = Field(description="kind of work")
    name: str = Field(description="the module or operator")
    begin_ms: float = Field(description="start, ms")
    end_ms: float = Field(description="end, ms")
    layer: int | None = Field(None, description="layer, where it is known")
    message_bytes: int | None = Field(None, description="bytes that enter a collective, where they are known")


class Timeline(CellRow):
    """One forward of one architecture as two lanes, measured or projected."""

    rank: int | None = Field(None, description="rank that was watched; null: all ranks alike")
    layers: int | None = Field(None, description="first layers that are kept; null: the whole forward")
    oversubscribed: bool = Field(False, description="ranks exceeded cores and took turns")
    events: list[TimelineEvent] = Field(description="stretches, each lane in order")


class TimedRow(CellRow):
    """Columns that a measured and a projected row share; t is the row's time, t_standard the baseline's."""

    model: str = Field(description="model config")
    n_layer: int = Field(description="layers timed")
    speedup: float | None = Field(description="t_standard / t − 1 in the same cell")
    compute_ms: float | None = Field(description="the row's own model with its collectives left out, ms")
    exposed_communication_ms: float | None = Field(description="t − compute_ms: what collectives add, ms")
    hideable_ms: float | None = Field(description="t_standard − t_bound: all that hiding could win back, ms")
    share_hidden: float | None = Field(description="(t_standard − t) / hideable_ms; may pass 1")

    @property
    def milliseconds(self) -> float:
        """The row's time."""
        raise TypeError("a row that is neither measured nor projected has no time")

    @property
    def launches(self) -> Launches | None:
        """The samples behind it, where there are any."""
        return None

    @property
    def alternates(self) -> bool:
        """Whether its rounds alternated with those of the other rows of its cell."""
        return True

    @property
    def is_crowded(self) -> bool:
        """Whether ranks took turns on too few cores, so that the time shows order, not overlap."""
        return False

    @property
    def is_disturbed(self) -> bool:
        """Whether the machine was busy with something else."""
        return False
