"""From runs to quality.json: cells over seeds, laws, claims."""

from collections.abc import Callable, Sequence
from typing import Literal

from pipeline.config.study import StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.results import law, seeds
from pipeline.results.quality import Law, QualityCell, QualityModel, QualityResult, QualityRun
from pipeline.study import claims

Against = Literal["parameters", "layer_parameters", "tokens"]
Key = tuple[str, str, int]  # arm, size, tokens


def cells(runs: Sequence[QualityRun], models: Sequence[QualityModel], baseline: str) -> list[QualityCell]:
    """One for every arm, size and token count, in the order of `models`, token counts ascending."""
    grouped = _grouped(runs)
    found = []
    for arm, size, tokens in _ordered(grouped, models):
        own = grouped[arm, size, tokens]
        ended, theirs = _ended(own), _ended(grouped.get((baseline, size, tokens), []))
        found.append(
            QualityCell(
                kind=own[0].kind,
                arm=arm,
                size=size,
                tokens=tokens,
                seeds=len(ended),
                diverged=len(own) - len(ended),
                loss_nats=seeds.estimate(list(ended.values())) if ended else None,
                difference_nats=None if arm == baseline else seeds.paired(ended, theirs),
            )
        )
    return found


def laws(runs: Sequence[QualityRun], models: Sequence[QualityModel]) -> list[Law]:
    """Each arm's laws: against tokens at every size with two counts, against parameters at every count of two sizes."""
    sized = {(model.arm, model.size): model for model in models}
    ended = [run for run in runs if run.loss_nats is not None]

    def layers(run: QualityRun) -> int:
        return sized[run.arm, run.size].layer_parameters

    def parameters(run: QualityRun) -> int:
        return sized[run.arm, run.size].parameters

    kinds: list[tuple[Against, Callable[[QualityRun], int], Callable[[QualityRun], str]]] = [
        ("tokens", lambda run: run.tokens, lambda run: f"size {run.size}"),
        ("parameters", parameters, lambda run: f"{run.tokens} tokens"),
        ("layer_parameters", layers, lambda run: f"{run.tokens} tokens"),
    ]
    found = []
    for arm in dict.fromkeys(model.arm for model in models):
        own = [run for run in ended if run.arm == arm]
        for against, x, held in kinds:
            for fixed in dict.fromkeys(map(held, own)):
                together = [run for run in own if held(run) == fixed]
                points = [law.Point(x(run), run.seed, run.loss_nats) for run in together if run.loss_nats is not None]
                if fitted := law.fit(points):
                    kind = together[0].kind
                    found.append(Law(kind=kind, arm=arm, against=against, fixed=fixed, **fitted._asdict()))
    return found


def quality_result(
    study: StudyConfig,
    sweep: SweepConfig,
    runs: Sequence[QualityRun],
    models: Sequence[QualityModel],
    *,
    scale: str,
    global_batch_size: int,
    block_size: int,
    validation_tokens: int,
    unigram_loss_nats: float,
    flops: float,
    seconds: float,
) -> QualityResult:
    """The whole result. `flops` and `seconds` are all runs', with steps that runs share counted once.

    Raises ValueError where a run stands twice, or has no model.
    """
    over_seeds, fitted = cells(runs, models, study.baseline), laws(runs, models)
    center = (study.baseline, sweep.central_size, sweep.central_tokens)
    loss = next((cell.loss_nats for cell in over_seeds if (cell.arm, cell.size, cell.tokens) == center), None)
    reason = claims.margin_here(fitted, study.baseline, sweep.central_tokens, loss.value if loss else None)
    return QualityResult(
        study=study.name,
        question=study.question,
        scale=scale,
        baseline=study.baseline,
        central_size=sweep.central_size,
        central_tokens=sweep.central_tokens,
        global_batch_size=global_batch_size,
        block_size=block_size,
        validation_tokens=validation_tokens,
        unigram_loss_nats=unigram_loss_nats,
        models=list(models),
        runs=list(runs),
        cells=over_seeds,
        laws=fitted,
        margin_nats=claims.MARGIN_NATS,
        margin_reason=reason,
        claims=claims.judge(study, sweep, runs),
        flops=flops,
        seconds=seconds,
    )


def _grouped(runs: Sequence[QualityRun]) -> dict[Key, list[QualityRun]]:
    found: dict[Key, list[QualityRun]] = {}
    for run in runs:
        own = found.setdefault((run.arm, run.size, run.tokens), [])
        if any(other.seed == run.seed for other in own):
            raise ValueError(f"{run.arm} at size {run.size}, {run.tokens} tokens, seed {run.seed}: two runs")
        own.append(run)
    return found


def _ordered(grouped: dict[Key, list[QualityRun]], models: Sequence[QualityModel]) -> list[Key]:
    places = {(model.arm, model.size): place for place, model in enumerate(models)}
    for arm, size, _ in grouped:
        if (arm, size) not in places:
            raise ValueError(f"{arm} at size {size}: a run without a model")
    return sorted(grouped, key=lambda key: (places[key[:2]], key[2]))


def _ended(runs: Sequence[QualityRun]) -> dict[int, float]:
    return {run.seed: run.loss_nats for run in runs if run.loss_nats is not None}
