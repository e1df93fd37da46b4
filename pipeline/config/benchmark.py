"""What is timed, and by which protocol."""

import pkgutil
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.config.group import Group, Name, Once
from pipeline.config.link import LOOPBACK, is_link

BASELINE = "standard"  # what every speedup is measured against
Wire = Literal["float32", "bfloat16", "int8"]
WIRES: tuple[Wire, ...] = ("float32", "bfloat16", "int8")  # how sums may travel; the first is how they do anyway
ARCHITECTURES = Path(__file__).parents[1] / "models" / "architectures"


@cache
def _architectures() -> tuple[str, ...]:
    """By their files, longest name first: configuration imports no model."""
    return tuple(sorted((module.name for module in pkgutil.iter_modules([str(ARCHITECTURES)])), key=len, reverse=True))


def architecture_of(label: str) -> str:
    """The architecture of a label: itself, or the longest name that a `_` and a word more follow, as `kraken_flops`.

    The label itself where it is none: `block_of` refuses it, with the names there are.
    """
    return next((name for name in _architectures() if label == name or label.startswith(f"{name}_")), label)


def wire_of(label: str) -> Wire:
    """How a label's sums travel: `kraken_int8` is `kraken` with its sums as int8; float32 where it does not say."""
    return next((wire for wire in WIRES[1:] if label.endswith(f"_{wire}")), WIRES[0])


def unwired(label: str) -> str:
    """The label whose model this one runs, its sums as they are."""
    return label.removesuffix(f"_{wire_of(label)}")


def wired(label: str, wire: str) -> str:
    return label if wire == WIRES[0] else f"{label}_{wire}"


class Shape(Group):
    """Models of one size that are timed against each other."""

    size: str = Field(description="label of the row, as 1.3B")
    models: dict[str, str] = Field(
        description="model config by label (an architecture, or one, `_` and a word more, as kraken_flops), the "
        "standard one at least; the others take its shape. {tp_size} in a name is replaced by the number of ranks"
    )
    n_layer: PositiveInt | None = Field(
        None, description="layers actually timed; null: all (the paper runs a quarter of some)"
    )

    def model_name(self, label: str, tp_size: int) -> str | None:
        """The model config of a label that has one of its own here."""
        named = self.models.get(label)
        return named.replace("{tp_size}", str(tp_size)) if named else None


class BenchmarkConfig(Group):
    """Time To First Token and, on request, time per output token."""

    name: Name = Field(description="name of the config file, and of the result file")
    protocol: Literal["ranks", "one_rank"] = Field(
        "ranks", description="ranks: all ranks meet; one_rank: one rank's share with the collective modelled"
    )
    engine: Literal["torch", "tensorrt", "tensorrt_llm"] = Field(
        "torch", description="what runs the forward: torch, or engines that build_engine made, a GPU a rank"
    )
    architectures: Annotated[list[str], Once] = Field(
        description="labels of what is timed side by side, standard first"
    )
    shapes: list[Shape] = Field(description="rows of the grid", min_length=1)
    derived: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="by label, fields of the models that take the standard shape, as track_depth",
    )
    contexts: Annotated[list[PositiveInt], Once] = Field(description="prompt lengths in tokens", min_length=1)
    contexts_by_link: dict[str, list[PositiveInt]] = Field(
        default_factory=dict, description="by link, which of `contexts` are timed over it, where it is not all of them"
    )
    tp_sizes: Annotated[list[PositiveInt], Once] = Field(description="numbers of ranks", min_length=1)
    batch_sizes: Annotated[list[PositiveInt], Once] = Field(
        default_factory=lambda: [1], description="prompts per forward", min_length=1
    )
    headline_links: Annotated[list[str], Once] = Field(
        default_factory=list,
        description="links of the cells that the named headline is over, said before anything is measured; empty: all",
    )
    headline_contexts: Annotated[list[PositiveInt], Once] = Field(
        default_factory=list, description="prompt lengths of those cells, some of `contexts`; empty: all"
    )
    no_communication_bound: bool = Field(True, description="also time the standard model without its collectives")
    weights: Literal["trained", "random"] = Field("random", description="weights of the timed models")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="arithmetic of the forward")
    launches: PositiveInt = Field(
        3, description="launches of ranks that the whole grid is run in, one after the other; rounds are of a launch"
    )
    warmup_min: PositiveInt = Field(2, description="rounds before any is kept, in every launch")
    warmup_max: PositiveInt = Field(10, description="rounds after which warm-up ends even if unsettled")
    repeats_min: PositiveInt = Field(10, description="rounds that a launch keeps at least")
    repeats_max: PositiveInt = Field(60, description="rounds that a launch keeps at most")
    diagnostics_every: NonNegativeInt = Field(
        1,
        description="of so many rounds one also times what explains rows: collectives left out, or awaited at once; "
        "0: none does",
        le=3,
    )
    interval_width: PositiveFloat = Field(
        0.05, description="stop when the 95% interval is narrower than this share of the median"
    )
    time_limit_s: PositiveFloat = Field(
        30.0, description="seconds per cell of the grid over all launches, each of which gets an equal share"
    )
    decode_tokens: NonNegativeInt = Field(
        0,
        description="tokens generated after the first, timed each; 0: prefill only. "
        "With concurrencies, how many a request asks for on average, and only while serving",
    )
    concurrencies: Annotated[list[PositiveInt], Once] = Field(
        default_factory=list, description="clients served at a time, each of which waits for its tokens; empty: none"
    )
    requests_per_client: PositiveInt = Field(8, description="prompts that each client sends, one after the other")
    ttft_limit_ms: PositiveFloat | None = Field(
        None, description="TTFT that a request must keep to count as good, ms; null: twice the standard model's alone"
    )
    surface: bool = Field(
        False,
        description="also fit the projection's model to the rows of the first size, batch and number of ranks, and "
        "write what it says of every context and link",
    )
    breakdown: bool = Field(True, description="also attribute the time to operators")
    trace: bool = Field(True, description="also write a Chrome trace per architecture")
    cuda_graph: bool = Field(True, description="capture the prefill in one CUDA graph (GPU only)")
    transport: Literal["gloo", "socket"] = Field(
        "gloo", description="what carries all-reduces on CPU: gloo, or direct sockets that the kernel drives alone"
    )
    wires: Annotated[list[Wire], Once] = Field(
        default_factory=lambda: [WIRES[0]],
        description="how sums travel between ranks on CPU, float32 first; with several, every architecture is timed "
        "once a wire: LABEL_bfloat16 and LABEL_int8 stand beside LABEL",
        min_length=1,
    )
    wire_errors: Shape | None = Field(
        None,
        description="with several wires: models whose logits and loss are compared between wires, trained ones where "
        "the scale has them; null: the first of `shapes`",
    )
    decode_contexts: Annotated[list[PositiveInt], Once] = Field(
        default_factory=list, description="prompt lengths that decoding starts from; empty: those of `contexts`"
    )
    rank_timeout_s: PositiveFloat = Field(
        120.0, description="seconds without an answer after which a rank counts as hung"
    )

    @model_validator(mode="after")
    def check_grid(self) -> "BenchmarkConfig":
        sizes = [shape.size for shape in self.shapes]
        own = {label for shape in self.shapes for label in shape.models}
        faults = [f"shapes={sizes}: must name each once"] if len(set(sizes)) < len(sizes) else []
        faults += [
            f"{what}_min={least}: must not be above {what}_max={most}"
            for what, least, most in (
                ("warmup", self.warmup_min, self.warmup_max),
                ("repeats", self.repeats_min, self.repeats_max),
            )
            if least > most
        ]
        if self.architectures[:1] != [BASELINE]:
            faults.append(f"architectures={self.architectures}: must begin with {BASELINE}, which speedups are against")
        faults += [
            f"shapes {shape.size}: models={shape.models}: must name a {BASELINE} model, whose shape others take"
            for shape in self.shapes
            if BASELINE not in shape.models
        ]
        faults += [
            f"derived.{label}: the shapes name a model of its own; set these fields in its file"
            for label in self.derived
            if label in own
        ]
        faults += [*self._context_faults(), *self._headline_faults(), *self._wire_faults(), *self._serving_faults()]
        if self.surface and (self.protocol, self.engine) != ("ranks", "torch"):
            faults.append(
                f"surface=true: is fitted to ranks that meet over known links, not protocol={self.protocol} with "
                f"engine={self.engine}; set protocol=ranks and engine=torch, or surface=false"
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _wire_faults(self) -> list[str]:
        named = f"wires={self.wires}"
        faults = [
            f"architectures={self.architectures}: {label} is what wires=[float32, {wire_of(label)}] makes of "
            f"{unwired(label)}; name that one"
            for label in self.architectures
            if label != unwired(label)
        ]
        if self.wires[0] != WIRES[0]:
            faults.append(f"{named}: must begin with {WIRES[0]}, which speedups are against")
        if len(self.wires) > 1 and (self.dtype != "float32" or self.engine != "torch" or self.protocol != "ranks"):
            faults.append(f"{named}: other wires need dtype=float32, engine=torch and protocol=ranks; or set [float32]")
        return faults

    def _headline_faults(self) -> list[str]:
        odd_links = [link for link in self.headline_links if not is_link(link)]
        odd_contexts = [context for context in self.headline_contexts if context not in self.contexts]
        faults = []
        if odd_links:
            faults.append(f"headline_links={odd_links}: must be {LOOPBACK} or a rate such as 300mbit or 1gbit")
        if odd_contexts:
            faults.append(f"headline_contexts={odd_contexts}: must be among contexts={self.contexts}")
        return faults

    def _context_faults(self) -> list[str]:
        faults = [
            f"contexts_by_link.{link}: {link} is no link; must be {LOOPBACK} or a rate such as 300mbit or 1gbit"
            for link in self.contexts_by_link
            if not is_link(link)
        ]
        return faults + [
            f"contexts_by_link.{link}={chosen}: must be some of contexts={self.contexts}, each once"
            for link, chosen in self.contexts_by_link.items()
            if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(self.contexts)
        ]

    def _serving_faults(self) -> list[str]:
        if not self.concurrencies:
            return []
        named = f"concurrencies={self.concurrencies}"
        faults = []
        if self.engine != "torch" or self.protocol != "ranks":
            faults.append(f"{named}: clients are served by engine=torch and protocol=ranks alone; set concurrencies=[]")
        if not self.decode_tokens:
            faults.append(f"{named}: decode_tokens=0: requests ask for tokens behind the first; set 1 or more")
        if self.ttft_limit_ms is None and 1 not in self.concurrencies:
            faults.append(f"{named}: must have 1, from which ttft_limit_ms=null follows; or set ttft_limit_ms")
        return faults
