"""Claims about quality, the paper's and its neighbours', and what a study's runs say of each.

A claim of being as good is decided at the central size after the most tokens, by the paired difference over seeds:
contradicted where its 95% interval lies wholly above the margin, supported where it lies wholly below, open otherwise.
A claim of a narrowing gap is decided by how a difference that is surely beyond the margin changes from the first to the
last cell: supported where the interval of the change lies below 0, else contradicted where it lies above minus the
margin, open otherwise. Runs that diverged can only speak against an arm.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.config.model import ModelConfig
from pipeline.config.study import Arm, StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.results.quality import Claim, Estimate, Law, QualityRun, Verdict
from pipeline.results.seeds import paired, quantile

# Fixed, not fitted, so that no run moves it and no noisy law makes it large. 2% of perplexity: what a tenth more
# parameters bring a GPT-2 of 124M (2.85 nats on OpenWebText) by the published exponent 0.076 (arXiv 2001.08361).
MARGIN_NATS = 0.02
MARGIN_REASON = (
    "0.02 nats are 2% of perplexity, what a tenth more parameters bring a model at 2.85 nats by the published exponent "
    "0.076 (arXiv 2001.08361)"
)
MOST_SEEDS = 100  # beyond it, more seeds are no way to settle anything

KRAKEN = "Prabhakar et al. 2024, arXiv 2408.07802"
LADDER = "Zhang et al. 2025, arXiv 2501.06589"
TRACKS = "Wang et al. 2026, arXiv 2602.07306"
PALM = "Chowdhery et al. 2022, arXiv 2204.02311"
SHORT_RUNS = "the usual objection to small and short runs; the paper trains no model to compare with"
AT_SCALE = "python -m pipeline +experiment=same_tokens scale=paper: 124M to 760M parameters, up to the paper's tokens"


class Cell(NamedTuple):
    """A size and a token count."""

    size: str
    tokens: int

    def __str__(self) -> str:
        return f"size {self.size}, {self.tokens:,} tokens"


class Pair(NamedTuple):
    """Losses by seed of two arms in one cell; None: the run diverged."""

    ours: Mapping[int, float | None]
    theirs: Mapping[int, float | None]

    def difference(self) -> Estimate | None:
        return paired(_ended(self.ours), _ended(self.theirs))

    def lost(self) -> list[int]:
        """Seeds at which only ours diverged."""
        return [seed for seed, loss in self.ours.items() if loss is None and self.theirs.get(seed) is not None]


class Finding(NamedTuple):
    """A verdict, the number it rests on, why, and what more here would settle it."""

    verdict: Verdict
    number: Estimate | None
    because: str
    here: str = ""


@dataclass(frozen=True)
class Question(ABC):
    """A claim about arms of a study; `ours` or `theirs` None: it has no such arm."""

    claim: str
    source: str
    settled_by: str
    ours: str | None
    theirs: str | None

    @abstractmethod
    def decide(self, runs: Sequence[QualityRun]) -> Finding:
        """The verdict, where the study has both arms."""

    def judge(self, runs: Sequence[QualityRun]) -> Claim:
        """What the runs say of it."""
        finding = (
            self.decide(runs) if self.ours and self.theirs else Finding("open", None, "The study has no such arm.")
        )
        return Claim(
            claim=self.claim,
            source=self.source,
            arm=self.ours,
            verdict=finding.verdict,
            number_nats=finding.number,
            because=finding.because,
            settled_by=f"{self.settled_by}{finding.here}.",
        )

    def pair(self, runs: Sequence[QualityRun], cell: Cell) -> Pair:
        """The two arms' losses in a cell."""
        losses: dict[str | None, dict[int, float | None]] = {self.ours: {}, self.theirs: {}}
        for run in runs:
            if run.arm in losses and (run.size, run.tokens) == cell:
                losses[run.arm][run.seed] = run.loss_nats
        return Pair(losses[self.ours], losses[self.theirs])


@dataclass(frozen=True)
class AsGood(Question):
    """Ours is at most the margin worse than theirs."""

    cell: Cell

    def decide(self, runs: Sequence[QualityRun]) -> Finding:
        pair = self.pair(runs, self.cell)
        difference, lost, compared = pair.difference(), pair.lost(), len(_ended(pair.theirs))
        if len(lost) == compared > 1:
            because = f"At {self.cell} every run of {self.ours} diverged where {self.theirs} ended, {compared} seeds."
            return Finding("contradicted", None, because)
        if difference is None or difference.low is None or difference.high is None:
            return Finding("open", None, f"Fewer than two seeds ended for both arms at {self.cell}{_diverged(pair)}.")
        verdict: Verdict = "open"
        if difference.low > MARGIN_NATS:
            verdict = "contradicted"
        elif difference.high < MARGIN_NATS and not lost:
            verdict = "supported"
        seeds = len(_ended(pair.ours).keys() & _ended(pair.theirs).keys())
        because = (
            f"At {self.cell}, {self.ours} loses {_text(difference)} against {self.theirs} over {seeds} seeds, "
            f"where less than {MARGIN_NATS} is as good{_diverged(pair)}{self._elsewhere(runs)}."
        )
        here = _more_seeds(difference, seeds) if verdict == "open" and not lost else ""
        return Finding(verdict, difference, because, here)

    def _elsewhere(self, runs: Sequence[QualityRun]) -> str:
        others = dict.fromkeys(Cell(run.size, run.tokens) for run in runs if (run.size, run.tokens) != self.cell)
        found = [each.value for cell in others if (each := self.pair(runs, cell).difference())]
        return f"; in the other cells from {min(found):+.3f} to {max(found):+.3f}" if found else ""


@dataclass(frozen=True)
class Narrows(Question):
    """What ours loses against theirs is less in the last cell than in the first."""

    first: Cell
    last: Cell

    def decide(self, runs: Sequence[QualityRun]) -> Finding:
        if self.first == self.last:
            return Finding("open", None, f"The study has {self.first} alone.")
        pairs = self.pair(runs, self.first), self.pair(runs, self.last)
        gaps = [_gaps(pair) for pair in pairs]
        change = paired(gaps[1], gaps[0])
        before, after = pairs[0].difference(), pairs[1].difference()
        if change is None or before is None or after is None or before.low is None:
            diverged = "".join(map(_diverged, pairs))
            because = f"Fewer than two seeds ended for both arms at {self.first} and at {self.last}{diverged}."
            return Finding("open", None, because)
        assert change.low is not None and change.high is not None
        numbers = (
            f"At {self.first}, {self.ours} loses {_text(before)} against {self.theirs}, at {self.last} "
            f"{_text(after)}, a change of {_text(change)} by seed{''.join(map(_diverged, pairs))}."
        )
        if before.low <= MARGIN_NATS:
            return Finding("open", change, f"{numbers} No gap beyond {MARGIN_NATS} is sure in the first place.")
        verdict: Verdict = "supported" if change.high < 0 else "contradicted" if change.low > -MARGIN_NATS else "open"
        if verdict == "supported" and pairs[1].lost():
            verdict = "open"
        return Finding(verdict, change, numbers)


def judge(study: StudyConfig, sweep: SweepConfig, runs: Sequence[QualityRun]) -> list[Claim]:
    """Every claim that the study has arms for; of `same_tokens` the others too, as open."""
    asked = [one for one in questions(study, sweep) if study.name == "same_tokens" or (one.ours and one.theirs)]
    return [one.judge(runs) for one in asked]


def questions(study: StudyConfig, sweep: SweepConfig) -> list[Question]:
    """All claims, with this study's arms and cells."""
    sizes = list(sweep.sizes)
    most = Cell(sweep.central_size, sweep.tokens[-1])
    tokens = Cell(sweep.central_size, sweep.tokens[0]), most
    grown = Cell(sizes[0], sweep.central_tokens), Cell(sizes[-1], sweep.central_tokens)
    krakens = _named(study, "kraken", ffn_expansion=2)
    found: list[Question] = []

    def as_good(claim: str, source: str, ours: str | None, theirs: str = "standard", by: str = AT_SCALE) -> None:
        found.append(AsGood(claim, source, by, ours, _beside(study, ours, theirs), most))

    for arm in _or_none(krakens):
        claim = f"{_kraken(study, arm)} is as good as a standard model of as many parameters on the same tokens"
        as_good(claim, f"{KRAKEN}: a perplexity like that of public GPT-2 checkpoints, trained on other text", arm)
    for arm in _or_none(_named(study, "kraken", "layers", ffn_expansion=2)):
        claim = f"{_kraken(study, arm)} is as good as a standard model of as many parameters in its layers"
        as_good(claim, f"{KRAKEN}, held to a budget without embeddings and head", arm)
    ways = sorted(krakens, key=lambda arm: _ways(study, arm))
    fewest, widest = (ways[0], ways[-1]) if len(ways) > 1 else (None, None)
    claim = "More ways at equal parameters cost Kraken no quality"
    source = f"{KRAKEN}, table 3: task scores of 2, 4 and 6 ways at 124M show no order"
    found.append(AsGood(claim, source, AT_SCALE, widest, fewest, most))
    for arm in _or_none(krakens):
        against = _beside(study, arm, "standard")
        claim = f"What {_kraken(study, arm)} loses against the standard model shrinks with more tokens"
        found.append(Narrows(claim, SHORT_RUNS, AT_SCALE, arm, against, *tokens))
        claim = f"What {_kraken(study, arm)} loses against the standard model shrinks with size"
        found.append(Narrows(claim, SHORT_RUNS, AT_SCALE, arm, against, *grown))

    at_8b = "Both models at 8 billion parameters and more, where the source compared them"
    for arm in _or_none(_named(study, "parallel")):
        as_good("Parallel attention and FFN are as good as one after the other", PALM, arm, by=at_8b)
        claim, source = "What parallel attention and FFN lose shrinks with size", f"{PALM}: a little at 8B, none at 62B"
        found.append(Narrows(claim, source, at_8b, arm, _beside(study, arm, "standard"), *grown))
    at_1b = "Both models at 1 to 3 billion parameters, where the source compared them, over several seeds"
    for arm in _or_none(_named(study, "ladder")):
        as_good(
            "Ladder is as good as the standard model", f"{LADDER}: trained from scratch at 1B and 3B", arm, by=at_1b
        )
        as_good("Ladder is as good as parallel attention and FFN", LADDER, arm, "parallel", at_1b)
    for arm in _or_none(_named(study, "desync")):
        as_good("Desync is as good as the standard model", f"{LADDER}, implied where it is proposed", arm, by=at_1b)
    by = "Both models at the source's sizes, over several seeds"
    for arm in _or_none(_named(study, "parallel_track")):
        as_good("Parallel Track is as good as the standard model", f"{TRACKS}: competitive quality", arm, by=by)
    return found


def margin_here(laws: Sequence[Law], baseline: str, central_tokens: int, loss_nats: float | None) -> str:
    """Why the margin is what it is, and how many more parameters are worth it by the baseline's own law."""
    fixed = f"{central_tokens} tokens"
    law = next((one for one in laws if (one.arm, one.against, one.fixed) == (baseline, "parameters", fixed)), None)
    if law is None or loss_nats is None or law.exponent.value <= 0 or loss_nats <= MARGIN_NATS:
        return f"{MARGIN_REASON}; {baseline} has no law here that says how many parameters bring as much"
    log_growth = -math.log1p(-MARGIN_NATS / loss_nats) / law.exponent.value
    more = f"{math.expm1(log_growth):.0%}" if log_growth < math.log(11) else "over ten times"
    return f"{MARGIN_REASON}; by its own law, {baseline} needs {more} more parameters for as much here"


def _settings(arm: Arm) -> dict[str, object]:
    """What makes an arm another architecture: ways and track depth are degrees of one."""
    said = {"architecture": "standard", **arm.model}
    fields = ModelConfig.model_fields
    return {
        name: value
        for name, value in said.items()
        if name not in ("n_ways", "track_depth") and value != fields[name].default
    }


def _named(study: StudyConfig, architecture: str, budget: str = "all", **settings: object) -> list[str]:
    """Arms that are this architecture as its authors have it, without a change that an ablation makes."""
    wanted = {"architecture": architecture, **settings}
    return [name for name, arm in study.arms.items() if arm.budget == budget and _settings(arm) == wanted]


def _or_none(arms: list[str]) -> list[str | None]:
    """A claim without an arm is still a claim."""
    return [*arms] or [None]


def _beside(study: StudyConfig, ours: str | None, architecture: str) -> str | None:
    """The arm to hold `ours` against: of the same recipe, should the study have several."""
    if ours is None:
        return None
    recipe = _recipe(study.arms[ours])
    return next((name for name in _named(study, architecture) if _recipe(study.arms[name]) == recipe), None)


def _recipe(arm: Arm) -> tuple[float, float]:
    return arm.rate_width_exponent, arm.warmup_factor


def _ways(study: StudyConfig, arm: str) -> int:
    return int(study.arms[arm].model.get("n_ways", 1))


def _kraken(study: StudyConfig, arm: str | None) -> str:
    return "Kraken" if arm is None else f"Kraken with {_ways(study, arm)} ways"


def _ended(losses: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: loss for seed, loss in losses.items() if loss is not None}


def _gaps(pair: Pair) -> dict[int, float]:
    """Ours minus theirs by seed, where both ended."""
    ours, theirs = _ended(pair.ours), _ended(pair.theirs)
    return {seed: ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()}


def _text(estimate: Estimate) -> str:
    assert estimate.low is not None and estimate.high is not None
    value, low, high = (f"{round(number, 3) + 0.0:+.3f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} nats [{low}, {high}]"


def _diverged(pair: Pair) -> str:
    counts = [sum(loss is None for loss in losses.values()) for losses in pair]
    return f" ({counts[0]} of its runs diverged, {counts[1]} of the other's)" if any(counts) else ""


def _more_seeds(difference: Estimate, seeds: int) -> str:
    """How many seeds decide here, should the scatter and the mean stay as they are."""
    assert difference.high is not None
    deviation = (difference.high - difference.value) * math.sqrt(seeds) / quantile(seeds)
    distance = abs(difference.value - MARGIN_NATS)
    enough = (n for n in range(seeds + 1, MOST_SEEDS + 1) if quantile(n) * deviation / math.sqrt(n) < distance)
    needed = next(enough, None)
    return f"; here about {needed} seeds" if needed else f"; here more than {MOST_SEEDS} seeds"
