"""The search of recipes: for every arm the peak rate, and the initial scale, at which it learns most."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.config.study import Arm
from pipeline.config.sweep import SweepConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.results.search import FoundRecipe, Rung, SearchCost, SearchResult, SearchTrial
from pipeline.study.arms import Models, searched_sizes
from pipeline.study.trials import Maker, Recipe
from pipeline.training.trial import Outcome, Trial

METHOD = (
    "Ray Tune: every rate at the first initial scale, stopped by ASHA (asynchronous successive halving); then the "
    "other initial scales at the best rate, and then the rates next to the best at its scale, to the end"
)


@dataclass(frozen=True)
class Found:
    """One trial of a search."""

    arm: str
    size: str
    recipe: Recipe
    trial: Trial
    outcome: Outcome

    def loss(self) -> float:
        """What the search compares: infinite unless it ran to the end."""
        return float("inf") if self.outcome.loss_nats is None else self.outcome.loss_nats


Run = Callable[[list[Trial], bool], Mapping[str, list[Outcome]]]  # trials, halved or not -> outcomes by name


@dataclass(frozen=True)
class Search:
    """The search of one study."""

    sweep: SweepConfig
    arms: Mapping[str, Arm]
    models: Models
    maker: Maker

    def all(self, run: Run) -> tuple[list[Found], list[FoundRecipe]]:
        """Every trial and the best recipe of every arm at every searched size.

        Raises ConfigError where no trial of an arm ran to the end.
        """
        found: list[Found] = []
        recipes: list[FoundRecipe] = []
        for size in searched_sizes(self.sweep):
            by_arm = self.at(size, run)
            for arm, trials in by_arm.items():
                best = min(trials, key=Found.loss)
                if best.outcome.loss_nats is None:
                    raise ConfigError(_nothing_trains(arm, size, trials))
                recipes.append(
                    FoundRecipe(
                        arm=arm,
                        size=size,
                        **best.recipe._asdict(),
                        loss_nats=best.outcome.loss_nats,
                        at_edge=bool(_next(trials)),
                    )
                )
                found += trials
        return found, recipes

    def known(self) -> list[Trial]:
        """The trials that every search begins with; what follows depends on them."""
        rates, scale = self.sweep.learning_rates, self.sweep.init_stds[0]
        return [
            self._trial(arm, size, Recipe(rate, scale))
            for size in searched_sizes(self.sweep)
            for arm in self.arms
            if (arm, size) in self.models
            for rate in rates
        ]

    def at(self, size: str, run: Run) -> dict[str, list[Found]]:
        """The trials of every arm at one size: all rates, then the other initial scales, then rates next to the best.

        Only the first are halved, each arm's among themselves; what follows is run for all arms together.
        """
        sweep = self.sweep
        rates, scale = sorted(sweep.learning_rates), sweep.init_stds[0]
        order = sorted(rates, key=lambda rate: abs(rates.index(rate) - (len(rates) - 1) / 2))  # the likely ones first
        found: dict[str, list[Found]] = {}
        for arm in (name for name in self.arms if (name, size) in self.models):
            trials = self._done(run, size, [(arm, Recipe(rate, scale)) for rate in order], halved=True)
            if all(one.outcome.loss_nats is None for one in trials):  # those that were let through diverged
                stopped = [(arm, one.recipe) for one in trials if one.outcome.outcome == "stopped"]
                diverged = [one for one in trials if one.outcome.outcome == "diverged"]
                trials = diverged + self._done(run, size, stopped, halved=False)
            found[arm] = trials
        best = {arm: min(trials, key=Found.loss) for arm, trials in found.items()}
        others = [
            (arm, Recipe(one.recipe.learning_rate, other)) for arm, one in best.items() for other in sweep.init_stds[1:]
        ]
        self._add(run, found, size, others)
        for _ in range(sweep.extend):
            self._add(run, found, size, [(arm, recipe) for arm, trials in found.items() for recipe in _next(trials)])
        return found

    def _add(self, run: Run, found: dict[str, list[Found]], size: str, wanted: list[tuple[str, Recipe]]) -> None:
        for one in self._done(run, size, wanted, halved=False):
            found[one.arm].append(one)

    def _done(self, run: Run, size: str, wanted: list[tuple[str, Recipe]], halved: bool) -> list[Found]:
        trials = [(arm, recipe, self._trial(arm, size, recipe)) for arm, recipe in wanted]
        if not trials:
            return []
        outcomes = run([trial for _, _, trial in trials], halved)
        return [Found(arm, size, recipe, trial, outcomes[trial.name][0]) for arm, recipe, trial in trials]

    def _trial(self, arm: str, size: str, recipe: Recipe) -> Trial:
        model = self.models[arm, size]
        name = f"{model.name} rate {recipe.learning_rate} scale {recipe.init_std}"
        return self.maker.search_trial(name, model, self.arms[arm], recipe)


def recipe_of(result: SearchResult, arm: str, size: str) -> tuple[FoundRecipe, bool]:
    """The recipe an arm is trained with at a size, and whether it was searched at another one, the central."""
    own = [one for one in result.recipes if one.arm == arm]
    here = next((one for one in own if one.size == size), None)
    if here is not None:
        return here, False
    if not own:  # of another study's search
        raise ConfigError(f"the search has no recipe of {arm}: run python -m stages.search_recipes again")
    return own[0], True


def search_result(
    search: Search, found: list[Found], recipes: list[FoundRecipe], study: str, scale: str, seed: int
) -> SearchResult:
    """What search.json says."""
    trials = [_row(one) for one in found]
    return SearchResult(
        study=study,
        scale=scale,
        method=METHOD,
        learning_rates=search.sweep.learning_rates,
        init_stds=search.sweep.init_stds,
        search_tokens=search.sweep.search_tokens,
        seed=seed,
        trials=trials,
        recipes=recipes,
        cost=SearchCost(
            trials=len(trials),
            diverged=sum(one.outcome == "diverged" for one in trials),
            stopped=sum(one.outcome == "stopped" for one in trials),
            tokens=sum(one.tokens for one in trials),
            flops=sum(one.flops for one in trials),
            seconds=sum(one.seconds for one in trials),
        ),
    )


def _row(one: Found) -> SearchTrial:
    outcome, job = one.outcome, one.trial.jobs[0]
    return SearchTrial(
        kind="measured",
        arm=one.arm,
        size=one.size,
        **one.recipe._asdict(),
        outcome=outcome.outcome,
        rungs=[Rung(tokens=tokens, loss_nats=loss_nats) for tokens, loss_nats in outcome.validation],
        loss_nats=outcome.loss_nats,
        tokens=outcome.tokens,
        flops=float(outcome.own_tokens) * count.training_flops_per_token(job.model),
        seconds=outcome.seconds,
        run=job.fingerprint,
    )


def _next(trials: list[Found]) -> list[Recipe]:
    """The rates on both sides of the best, at its initial scale, that were not tried there; none where none trains."""
    best = min(trials, key=Found.loss)
    if best.outcome.loss_nats is None:
        return []
    rate, scale = best.recipe
    tried = sorted({one.recipe.learning_rate for one in trials})
    at = tried.index(rate)
    below = tried[at - 1] if at else (rate * rate / tried[1] if len(tried) > 1 else rate / 2)
    above = tried[at + 1] if at + 1 < len(tried) else (rate * rate / tried[-2] if len(tried) > 1 else rate * 2)
    here = {one.recipe.learning_rate for one in trials if one.recipe.init_std == scale}
    return [Recipe(one, scale) for one in (below, above) if one not in here]


def _nothing_trains(arm: str, size: str, trials: list[Found]) -> str:
    rates = ", ".join(f"{one.recipe.learning_rate:g}" for one in trials)
    return (
        f"sweep.learning_rates: no point of the search space trains {arm} at size {size}: all of {rates} diverged; "
        f"rates below {min(one.recipe.learning_rate for one in trials):g} might"
    )
