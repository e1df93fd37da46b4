"""From arms, token counts and recipes to the trials that a study runs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from pipeline import provenance
from pipeline.config import Config, ModelConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.study import Arm, StudyConfig
from pipeline.config.training import TrainingConfig
from pipeline.errors import ConfigError
from pipeline.models import count
from pipeline.study.arms import Models, cells
from pipeline.study.settings import TRAINING
from pipeline.training import run as runs
from pipeline.training.job import TrainingJob
from pipeline.training.trial import Trial

SEEDS = 2**32
FOLDER = "trials"  # in the scale's folder of runs
SEARCH_WINDOWS = 4  # a search estimates losses on so much less of the validation split: it compares one arm with itself


class Recipe(NamedTuple):
    """What a search looks for."""

    learning_rate: float
    init_std: float


@dataclass(frozen=True)
class Maker:
    """Makes trials of one study's settings, on these tokens and this code."""

    config: Config
    data_folder: Path
    code_of: Callable[[str], dict[str, str]]  # what takes the steps of an architecture's models
    device_flops: dict[str, float]

    def trial(
        self, name: str, model: ModelConfig, arm: Arm, recipe: Recipe, tokens: tuple[int, ...], seed: int
    ) -> Trial:
        """A model from one seed to every one of `tokens`, ascending; raises ConfigError where a step does not fit."""
        return self._trial(name, model, arm, recipe, tokens, seed)

    def search_trial(self, name: str, model: ModelConfig, arm: Arm, recipe: Recipe) -> Trial:
        """One recipe of a search, with a validation at every rung."""
        sweep, training = self.config.sweep, self.config.training
        windows = max(1, training.eval_windows // SEARCH_WINDOWS)
        changes = {"eval_interval": self.first_rung(model) // self.tokens_per_step(model), "eval_windows": windows}
        return self._trial(name, model, arm, recipe, (sweep.search_tokens,), training.seed, **changes)

    def first_rung(self, model: ModelConfig) -> int:
        """Tokens of the search's first rung; raises ConfigError where rungs are no whole steps."""
        sweep = self.config.sweep
        per_step = self.tokens_per_step(model)
        share = sweep.reduction_factor ** (sweep.rungs - 1)
        first = sweep.search_tokens / share
        steps = first / per_step
        if steps < 1 or abs(steps - round(steps)) > 1e-9 * steps:
            mend = f"a multiple of {per_step * round(share)}" if share == round(share) else "a whole reduction factor"
            raise ConfigError(
                f"sweep.search_tokens={sweep.search_tokens}: with sweep.rungs={sweep.rungs} and "
                f"sweep.reduction_factor={sweep.reduction_factor:g} the first rung is {steps:g} steps of {per_step} "
                f"tokens; {mend} would fit"
            )
        return round(first)

    def check(self, study: StudyConfig, models: Models) -> None:
        """Raise ConfigError where the steps or seeds of any run of the study do not fit; needs no tokens."""
        sweep, seed = self.config.sweep, self.config.training.seed
        last = seed + sweep.n_seeds - 1
        if last >= SEEDS:
            raise ConfigError(
                f"training.seed={seed}: with sweep.n_seeds={sweep.n_seeds} the last is {last}; must be below {SEEDS}"
            )
        recipe = Recipe(sweep.learning_rates[0], sweep.init_stds[0])
        for arm, size, tokens in cells(study, sweep):
            self.first_rung(models[arm, size])
            for one in (sweep.search_tokens, *tokens):
                self._training(models[arm, size], study.arms[arm], recipe, one, 0, {})

    def tokens_per_step(self, model: ModelConfig) -> int:
        return self.config.training.global_batch_size * model.block_size

    def _trial(
        self,
        name: str,
        model: ModelConfig,
        arm: Arm,
        recipe: Recipe,
        tokens: tuple[int, ...],
        seed: int,
        **changes: Any,
    ) -> Trial:
        model = model.model_copy(update={"init_std": recipe.init_std})
        trainings = [self._training(model, arm, recipe, one, seed, changes) for one in tokens]
        shared = trainings[0].model_dump(mode="json", exclude={"steps", "eval_interval", "eval_windows"})
        group = provenance.fingerprint(model.identity(), shared, self.config.data.identity())
        folder = Path(self.config.paths.runs, self.config.scale.name, FOLDER, f"{model.name}-{group}").resolve()
        jobs = []
        for training in trainings:
            settings = {"model": model.identity(), "training": training.identity()}
            identity = runs.identity(settings, self.data_folder, self.code_of(model.architecture))
            run_folder = folder / f"{training.steps}-{identity}"
            cluster = _alone(self.config.cluster, training)
            jobs.append(
                TrainingJob(model, training, cluster, self.data_folder, run_folder, identity, self.device_flops)
            )
        return Trial(name, tuple(jobs), count.training_flops_per_token(model) * float(tokens[-1]))

    def _training(
        self, model: ModelConfig, arm: Arm, recipe: Recipe, tokens: int, seed: int, changes: dict[str, Any]
    ) -> TrainingConfig:
        per_step = self.tokens_per_step(model)
        if tokens % per_step:
            raise ConfigError(
                f"sweep.tokens={tokens}: no whole number of steps of {per_step} tokens; "
                f"{max(1, round(tokens / per_step)) * per_step} would be"
            )
        steps = tokens // per_step
        base = self.config.training
        warmup = round(self.config.sweep.warmup_steps * arm.warmup_factor)
        if warmup >= steps:
            raise ConfigError(
                f"sweep.warmup_steps={self.config.sweep.warmup_steps}: {warmup} steps of warm-up leave none of {steps} "
                f"({tokens} tokens); at most {steps // 4} would be sensible"
            )
        settings = {
            **{field: getattr(base, field) for field in TRAINING},
            "steps": steps,
            "schedule": "wsd",
            "learning_rate": recipe.learning_rate,
            "warmup_steps": warmup,
            "seed": seed,
            "eval_interval": steps,
            "sample_tokens": 0,
            "branch_from": None,
            **changes,
        }
        try:
            return TrainingConfig.model_validate(settings)
        except ValidationError as error:
            told = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"training: {told} ({steps} steps are {tokens} tokens)") from None


def _alone(cluster: ClusterConfig, training: TrainingConfig) -> ClusterConfig:
    """One process of one device, whose passes are as large as cluster.micro_batch_size allows."""
    batch = training.global_batch_size
    micro = next(size for size in range(min(batch, cluster.micro_batch_size), 0, -1) if batch % size == 0)
    halved = training.eval_interval < training.steps  # a search hears of a validation along with a checkpoint
    interval = training.eval_interval if halved else cluster.checkpoint_interval
    return cluster.model_copy(
        update={
            "num_workers": 1,
            "tp_size": 1,
            "fsdp": False,
            "micro_batch_size": micro,
            "keep_checkpoints": 1,
            "milestone_interval": 0,
            "checkpoint_interval": interval,
        }
    )
