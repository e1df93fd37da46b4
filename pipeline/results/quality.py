"""Losses of a study's arms on the same tokens: every run, and what follows from them."""

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.results.file import Result, Row, Typed

Verdict = Literal["supported", "contradicted", "open"]


class QualityRun(Row):
    """One arm at one size and token count from one seed. Runs of a seed see the same tokens in the same order."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    tokens: int = Field(description="training tokens")
    seed: int = Field(description="of initial weights and of the order of the tokens")
    loss_nats: float | None = Field(description="validation loss at the end, nats a token; null: the run diverged")
    seconds: float = Field(description="wall seconds of its steps and validations")
    run: str = Field(description="names the run: model, settings, tokens and code")


class QualityModel(Typed):
    """An arm's model at a size, and what it is trained with."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    budget: Literal["all", "layers"] = Field(description="which parameters are the standard model's in number")
    architecture: str = Field(description="architecture")
    n_layer: int = Field(description="layers")
    n_ways: int = Field(description="ways")
    n_head: int = Field(description="attention heads, over all ways")
    n_embd: int = Field(description="width, of a way in Kraken")
    parameters: int = Field(description="exact number of parameters")
    layer_parameters: int = Field(description="those but for embeddings and head")
    training_flops_per_token: float = Field(description="counted")
    learning_rate: float = Field(description="peak rate, from the search")
    init_std: float = Field(description="initial scale, from the search")
    rate_is_scaled: bool = Field(description="whether the rate was searched at another size")


class Estimate(Typed):
    """A number over seeds. The interval is null below two seeds that ended."""

    value: float = Field(description="mean, or the fitted number")
    low: float | None = Field(description="lower end of the 95% interval")
    high: float | None = Field(description="upper end of the 95% interval")

    def text(self, digits: int = 3, sign: str = "") -> str:
        """With its interval in brackets, where it has one: +0.21 (0.18 to 0.24); a sign is the value's alone."""
        value = _rounded(self.value, digits, sign)
        if self.low is None or self.high is None:
            return value
        return f"{value} ({_rounded(self.low, digits)} to {_rounded(self.high, digits)})"


def _rounded(value: float, digits: int, sign: str = "") -> str:
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no minus before a zero


class QualityCell(Row):
    """One arm at one size and token count."""

    arm: str = Field(description="arm of the study")
    size: str = Field(description="label of the size")
    tokens: int = Field(description="training tokens")
    seeds: int = Field(description="runs that ended")
    diverged: int = Field(description="runs that did not")
    loss_nats: Estimate | None = Field(description="validation loss over seeds; null: no run ended")
    difference_nats: Estimate | None = Field(
        description="its loss minus the baseline's, paired by seed; null: the baseline itself, or too few pairs"
    )


class Law(Row):
    """loss = scale · x^(−exponent), fitted to the runs of one arm; of three points no more can be known."""

    arm: str = Field(description="arm of the study")
    against: Literal["parameters", "layer_parameters", "tokens"] = Field(description="what x is")
    fixed: str = Field(description="what was held: the token count or the size")
    points: int = Field(description="different x")
    scale: Estimate = Field(description="nats a token at x = 1")
    exponent: Estimate = Field(description="how fast the loss falls")
    worst_residual_nats: float = Field(description="largest distance of a mean loss from the law")


class Claim(Typed):
    """One claim about quality, and what these runs say of it."""

    claim: str = Field(description="in a sentence")
    source: str = Field(description="who claims it, and where")
    arm: str | None = Field(description="the arm it is about; null: the study has none such")
    verdict: Verdict = Field(description="of these runs alone, at these sizes")
    number_nats: Estimate | None = Field(
        description="what the verdict rests on: the arm's loss minus the other's, paired by seed, or how that changes "
        "over tokens or sizes; null: too few pairs"
    )
    because: str = Field(description="the numbers behind the verdict, in a sentence")
    settled_by: str = Field(description="what would settle it at the claim's own size")


class QualityResult(Result):
    """quality.json: a study's runs and what follows from them."""

    file_name: ClassVar[str] = "results/<scale>/<study>/quality.json"
    command: ClassVar[str] = "python -m stages.compare_quality +experiment=NAME"
    schema_name: Literal["quality"] = "quality"
    schema_version: Literal[1] = 1
    study: str = Field(description="name of the study")
    question: str = Field(description="what it answers")
    scale: str = Field(description="demo, cpu, small_gpu or paper")
    baseline: str = Field(description="the arm that the others are held against")
    central_size: str = Field(description="the size that sees every token count")
    central_tokens: int = Field(description="the token count that every size sees")
    global_batch_size: int = Field(description="sequences a step")
    block_size: int = Field(description="tokens a sequence")
    validation_tokens: int = Field(description="tokens behind each validation loss")
    unigram_loss_nats: float = Field(description="loss of a unigram model of the same text, nats a token")
    models: list[QualityModel] = Field(description="every arm at every size")
    runs: list[QualityRun] = Field(description="every run")
    cells: list[QualityCell] = Field(description="runs over their seeds")
    laws: list[Law] = Field(description="fitted laws")
    margin_nats: float = Field(description="a loss worse by less is as good, nats a token; fixed before any run")
    margin_reason: str = Field(description="why that much, and how many parameters it is worth here")
    claims: list[Claim] = Field(description="claims of the paper and of others, judged")
    flops: float = Field(description="training FLOPs of all runs, shared steps once, counted")
    seconds: float = Field(description="the runs' wall seconds added up; several run side by side")
