"""The runs of a study, with the recipes that were searched, and the result they make."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.study import StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.data import TokenData
from pipeline.models import count
from pipeline.results.quality import QualityModel, QualityResult, QualityRun
from pipeline.results.search import SearchResult
from pipeline.study.arms import Cell, Models, cells
from pipeline.study.quality import quality_result
from pipeline.study.search import recipe_of
from pipeline.study.trials import Maker, Recipe
from pipeline.training.trial import Outcome, Trial


@dataclass(frozen=True)
class Comparison:
    """Every cell of a study from every seed."""

    study: StudyConfig
    sweep: SweepConfig
    models: Models
    search: SearchResult
    maker: Maker
    seed: int  # the first one

    def trials(self) -> list[Trial]:
        """Seed by seed, so that an unfinished study has whole seeds; within a seed the largest models first."""
        return [self._trial(cell, seed) for seed in self._seeds() for cell in cells(self.study, self.sweep)]

    def result(self, outcomes: Mapping[str, list[Outcome]], data: TokenData, scale: str) -> QualityResult:
        """What quality.json says; raises ConfigError where the search lacks a recipe."""
        runs: list[QualityRun] = []
        flops = seconds = 0.0
        for seed in self._seeds():
            for cell in cells(self.study, self.sweep):
                trial = self._trial(cell, seed)
                for tokens, job, outcome in zip(cell.tokens, trial.jobs, outcomes[trial.name], strict=True):
                    runs.append(
                        QualityRun(
                            kind="measured",
                            arm=cell.arm,
                            size=cell.size,
                            tokens=tokens,
                            seed=seed,
                            loss_nats=outcome.loss_nats,
                            seconds=outcome.seconds,
                            run=job.fingerprint,
                        )
                    )
                    flops += float(outcome.own_tokens) * count.training_flops_per_token(job.model)
                    seconds += outcome.seconds * outcome.own_tokens / max(1, outcome.tokens)
        some = next(iter(self.models.values()))
        training = self.maker.config.training
        windows = max(1, min(training.eval_windows, (data.val.tokens - 1) // some.block_size))
        return quality_result(
            study=self.study,
            sweep=self.sweep,
            scale=scale,
            models=[self._model(arm, size) for arm, size in self.models],
            runs=runs,
            global_batch_size=training.global_batch_size,
            block_size=some.block_size,
            validation_tokens=windows * min(some.block_size, data.val.tokens - 1),
            unigram_loss_nats=data.manifest["unigram_loss_nats"],
            flops=flops,
            seconds=seconds,
        )

    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.sweep.n_seeds)

    def _trial(self, cell: Cell, seed: int) -> Trial:
        model, arm = self.models[cell.arm, cell.size], self.study.arms[cell.arm]
        return self.maker.trial(
            f"{model.name} seed {seed}", model, arm, self._recipe(cell.arm, cell.size)[0], cell.tokens, seed
        )

    def _recipe(self, arm: str, size: str) -> tuple[Recipe, bool]:
        """What an arm is trained with at a size, and whether it was searched at another one."""
        found, elsewhere = recipe_of(self.search, arm, size)
        rate, exponent = found.learning_rate, self.study.arms[arm].rate_width_exponent
        if elsewhere and exponent:
            rate *= (self.models[arm, found.size].n_embd / self.models[arm, size].n_embd) ** exponent
        return Recipe(rate, found.init_std), elsewhere

    def _model(self, arm: str, size: str) -> QualityModel:
        model, (recipe, elsewhere) = self.models[arm, size], self._recipe(arm, size)
        return QualityModel(
            arm=arm,
            size=size,
            budget=self.study.arms[arm].budget,
            architecture=model.architecture,
            n_layer=model.n_layer,
            n_ways=model.n_ways,
            n_head=model.n_head,
            n_embd=model.n_embd,
            parameters=count.parameters(model),
            layer_parameters=count.layer_parameters(model),
            training_flops_per_token=count.training_flops_per_token(model),
            learning_rate=recipe.learning_rate,
            init_std=recipe.init_std,
            rate_is_scaled=elsewhere,
        )
