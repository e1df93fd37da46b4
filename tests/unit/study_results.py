"""A study's result files with synthetic, plausible numbers under them: nine arms, three sizes, three token counts."""

import math
from typing import Any, Literal

import numpy as np

from pipeline.compose import compose
from pipeline.config.study import StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.results.quality import Estimate, QualityModel, QualityResult, QualityRun
from pipeline.results.search import FoundRecipe, Rung, SearchCost, SearchResult, SearchTrial
from pipeline.results.trade import TradeResult, TradeRow, TradeSetting
from pipeline.study.quality import quality_result

ARMS = {  # arm: architecture, ways, nats above standard
    "standard": ("standard", 1, 0.0),
    "parallel": ("parallel", 1, 0.03),
    "kraken_2way": ("kraken", 2, 0.11),
    "kraken_4way": ("kraken", 4, 0.21),
    "ladder": ("ladder", 1, 0.02),
    "desync_4way": ("desync", 4, 0.08),
    "parallel_track_4way": ("parallel_track", 4, 0.14),
    "kraken_2way_layers": ("kraken", 2, 0.07),
    "kraken_4way_layers": ("kraken", 4, 0.15),
}
SIZES = {"s": 1_350_000, "m": 2_000_000, "l": 3_000_000}
TOKENS = (196_608, 393_216, 786_432)
RATES, SCALES, SEEDS = (1e-3, 2e-3, 4e-3, 8e-3), (0.02, 0.06), (1337, 1338, 1339)
MILLISECONDS = {"standard": 9.0, "parallel": 7.8, "kraken": 6.1, "ladder": 6.6, "desync": 6.9, "parallel_track": 6.4}


def center(arm: str, size: str, tokens: int) -> float:
    """Nats without noise."""
    return 4.4 * (SIZES[size] / SIZES["m"]) ** -0.09 * (tokens / TOKENS[1]) ** -0.12 + ARMS[arm][2]


def configs(study: str) -> tuple[StudyConfig, SweepConfig]:
    """The study as its files would say it."""
    arms: dict[str, Any] = {}
    for arm, (architecture, n_ways, _) in ARMS.items():
        said = {"architecture": architecture, "n_ways": n_ways} if architecture != "standard" else {}
        said |= {"ffn_expansion": 2} if architecture == "kraken" else {}
        arms[arm] = {"model": said, "budget": "layers" if arm.endswith("_layers") else "all"}
    asked = {"name": study, "question": "is Kraken as good?", "baseline": "standard", "arms": arms}
    sweep = compose(["scale=cpu"]).sweep
    sizes = dict.fromkeys(SIZES, sweep.sizes[sweep.central_size])
    cross = {"sizes": sizes, "tokens": list(TOKENS), "central_size": "m", "central_tokens": TOKENS[1]}
    return StudyConfig.model_validate(asked), sweep.model_copy(update=cross)


def quality(scale: str = "demo", study: str = "same_tokens", diverging: str = "") -> QualityResult:
    """Every run, and what the pipeline says of it; with `diverging`, that arm's runs in the central cell diverged."""
    generator = np.random.default_rng(0)
    runs = []
    for size, tokens in [("s", TOKENS[1]), *(("m", tokens) for tokens in TOKENS), ("l", TOKENS[1])]:
        for arm in ARMS:
            for seed in SEEDS:
                lost = arm == diverging and (size, tokens) == ("m", TOKENS[1])
                loss = center(arm, size, tokens) + 0.02 * (seed - SEEDS[1]) + generator.normal(0, 0.01)
                runs.append(
                    QualityRun(
                        kind="measured",
                        arm=arm,
                        size=size,
                        tokens=tokens,
                        seed=seed,
                        loss_nats=None if lost else loss,
                        seconds=40.0,
                        run="r",
                    )
                )
    return quality_result(
        *configs(study),
        runs,
        [model(arm, size) for size in SIZES for arm in ARMS],
        scale=scale,
        global_batch_size=4,
        block_size=256,
        validation_tokens=65_536,
        unigram_loss_nats=6.5,
        flops=3.1e15,
        seconds=5400.0,
    )


def layer_parameters(arm: str, size: str) -> int:
    """Narrow ways have small embeddings: at equal parameters more of them stand in layers."""
    equal = SIZES[size] - 700_000
    return equal if arm.endswith("_layers") else equal + 55_000 * (ARMS[arm][1] - 1)


def model(arm: str, size: str) -> QualityModel:
    architecture, n_ways, _ = ARMS[arm]
    in_layers = arm.endswith("_layers")
    return QualityModel(
        arm=arm,
        size=size,
        budget="layers" if in_layers else "all",
        architecture=architecture,
        n_layer=4,
        n_ways=n_ways,
        n_head=4,
        n_embd=160 // n_ways,
        parameters=SIZES[size] - (60_000 * n_ways if in_layers else 1000 * n_ways),
        layer_parameters=layer_parameters(arm, size),
        training_flops_per_token=6.0 * SIZES[size],
        learning_rate=4e-3,
        init_std=0.02,
        rate_is_scaled=size != "m",
    )


def trial(arm: str, size: str, rate: float, init_std: float, best: float) -> SearchTrial:
    """Far from the best rate a trial is stopped, and Kraken diverges at the highest unless that is its best."""
    far = abs(math.log2(rate / best))
    loss = center(arm, size, TOKENS[0]) + 0.06 * far**2 + (0.05 if init_std > SCALES[0] else 0.0)
    outcome: Literal["finished", "stopped", "diverged"] = "stopped" if far >= 2 else "finished"
    if rate == RATES[-1] != best and arm.startswith("kraken"):
        outcome = "diverged"
    tokens = TOKENS[0] if outcome == "finished" else TOKENS[0] // 4
    return SearchTrial(
        kind="measured",
        arm=arm,
        size=size,
        learning_rate=rate,
        init_std=init_std,
        outcome=outcome,
        rungs=[] if outcome == "diverged" else [Rung(tokens=TOKENS[0] // 4, loss_nats=loss + 0.9)],
        loss_nats=loss if outcome == "finished" else None,
        tokens=tokens,
        flops=6.0 * SIZES[size] * tokens,
        seconds=20.0,
        run="r",
    )


def search(scale: str = "demo", study: str = "same_tokens", sizes: tuple[str, ...] = ("m",)) -> SearchResult:
    """Parabolas in the rate: all rates at one initial scale, the other scale at the best of them."""
    trials, recipes = [], []
    for size in sizes:
        for index, arm in enumerate(ARMS):
            best = RATES[2] if index % 3 else RATES[3]
            points = [(rate, SCALES[0]) for rate in RATES] + [(best, SCALES[1])]
            own = [trial(arm, size, *point, best) for point in points]
            found = min((one for one in own if one.loss_nats is not None), key=lambda one: one.loss_nats or 0.0)
            keys = ("arm", "size", "learning_rate", "init_std", "loss_nats")
            at_edge = found.learning_rate in (RATES[0], RATES[-1])
            recipes.append(FoundRecipe(**{key: getattr(found, key) for key in keys}, at_edge=at_edge))
            trials += own
    outcomes = [trial.outcome for trial in trials]
    cost = SearchCost(
        trials=len(trials),
        diverged=outcomes.count("diverged"),
        stopped=outcomes.count("stopped"),
        tokens=sum(trial.tokens for trial in trials),
        flops=sum(trial.flops for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
    )
    return SearchResult(
        study=study,
        scale=scale,
        method="every point of the grid, stopped by ASHA",
        learning_rates=list(RATES),
        init_stds=list(SCALES),
        search_tokens=TOKENS[0],
        seed=SEEDS[0],
        trials=trials,
        recipes=recipes,
        cost=cost,
    )


def trade(scale: str = "demo", study: str = "same_tokens") -> TradeResult:
    """Measured over ranks, projected for a GPU."""
    rows = []
    for kind, factor in (("measured", 1.0), ("projected", 0.02)):
        for size in SIZES:
            for arm, (architecture, _, worse) in ARMS.items():
                share = SIZES[size] / SIZES["m"]
                standard, own = (factor * MILLISECONDS[name] * share**0.8 for name in ("standard", architecture))
                own *= 1.06 if arm.endswith("_layers") else 1.02 if arm.endswith("4way") else 1.0
                loss, is_measured = center(arm, size, TOKENS[1]), kind == "measured"
                inside = size != "s" and arm != "standard"
                rows.append(
                    TradeRow(
                        kind=kind,  # type: ignore[arg-type]
                        arm=arm,
                        size=size,
                        loss_nats=Estimate(value=loss, low=loss - 0.03, high=loss + 0.03),
                        ttft_ms=Estimate(
                            value=own, low=0.97 * own if is_measured else None, high=1.04 * own if is_measured else None
                        ),
                        speedup=standard / own - 1,
                        standard_loss_nats=loss - worse + 0.05 if inside else None,
                        gain_nats=Estimate(value=0.05 - worse, low=0.01 - worse, high=0.09 - worse) if inside else None,
                    )
                )
    return TradeResult(
        study=study,
        scale=scale,
        central_tokens=TOKENS[1],
        settings=[
            TradeSetting(
                kind="measured",
                where="4 ranks on cpu in float32 over loopback (gloo)",
                tp_size=4,
                context=256,
                batch_size=1,
            ),
            TradeSetting(
                kind="projected", where="4 × a100_40gb_nvswitch in float16", tp_size=4, context=256, batch_size=1
            ),
        ],
        rows=rows,
        verdict="No: at every measured speed a smaller standard model has the lower loss (kraken 4way by 0.16 nats).",
    )
