"""From runs to verdicts: cells and laws of a made study, and what flips a claim."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.study import StudyConfig
from pipeline.config.sweep import SweepConfig
from pipeline.results import read, write
from pipeline.results.quality import Claim, QualityModel, QualityResult, QualityRun
from pipeline.study import claims
from pipeline.study.quality import quality_result

SWEEP = SweepConfig.model_validate(
    {
        "name": "made",
        "sizes": {size: {"model": "demo_standard"} for size in ("s", "m", "l")},
        "tokens": [100_000, 200_000, 400_000],
        "central_size": "m",
        "central_tokens": 200_000,
        "warmup_steps": 10,
        "learning_rates": [1e-3],
        "init_stds": [0.02],
        "search_tokens": 100_000,
    }
)
KRAKEN = {"architecture": "kraken", "ffn_expansion": 2}
ARMS: dict[str, dict[str, Any]] = {
    "standard": {},
    "parallel": {"model": {"architecture": "parallel"}},
    "kraken_2way": {"model": {**KRAKEN, "n_ways": 2}},
    "kraken_4way": {"model": {**KRAKEN, "n_ways": 4}},
    "ladder": {"model": {"architecture": "ladder"}},
    "desync_4way": {"model": {"architecture": "desync", "n_ways": 4}},
    "parallel_track_4way": {"model": {"architecture": "parallel_track", "n_ways": 4, "track_depth": 2}},
    "kraken_4way_layers": {"model": {**KRAKEN, "n_ways": 4}, "budget": "layers"},
}
PARAMETERS = {"s": 1_000_000, "m": 2_000_000, "l": 4_000_000}
CELLS = [("m", 100_000), ("m", 200_000), ("m", 400_000), ("s", 200_000), ("l", 200_000)]
SCATTER = {1: -0.001, 2: 0.0, 3: 0.001}  # of a difference, by seed: ±0.0025 where most is trained, half of elsewhere's
Gap = Callable[[str, str, int], float | None]


def study(arms: dict[str, dict[str, Any]] = ARMS, name: str = "same_tokens") -> StudyConfig:
    return StudyConfig.model_validate({"name": name, "question": "is it?", "baseline": next(iter(arms)), "arms": arms})


def runs(gap: Gap, arms: dict[str, dict[str, Any]] = ARMS, scatter: dict[int, float] = SCATTER) -> list[QualityRun]:
    """A standard model of exact laws, and the others `gap` above it; None: diverged."""
    found = []
    for arm in arms:
        for size, tokens in CELLS:
            above = 0.0 if arm == "standard" else gap(arm, size, tokens)
            standard = 4.0 * (tokens / 200_000) ** -0.1 * (PARAMETERS[size] / 2_000_000) ** -0.08
            for seed, wobble in scatter.items():
                own = wobble * (1 if size == "l" or tokens == 400_000 else 2) if arm != "standard" else 0.0
                loss = None if above is None else standard + 0.05 * seed + above + own
                known = {"arm": arm, "size": size, "tokens": tokens, "seed": seed, "loss_nats": loss}
                found.append(QualityRun(kind="measured", seconds=1.0, run="r", **known))
    return found


def models(arms: dict[str, dict[str, Any]] = ARMS) -> list[QualityModel]:
    return [
        QualityModel(
            arm=arm,
            size=size,
            budget=settings.get("budget", "all"),
            architecture=settings.get("model", {}).get("architecture", "standard"),
            n_layer=2,
            n_ways=settings.get("model", {}).get("n_ways", 1),
            n_head=4,
            n_embd=64,
            parameters=count,
            layer_parameters=count // 2,
            training_flops_per_token=6.0 * count,
            learning_rate=1e-3,
            init_std=0.02,
            rate_is_scaled=False,
        )
        for arm, settings in arms.items()
        for size, count in PARAMETERS.items()
    ]


def result(found: list[QualityRun], of: StudyConfig | None = None, sweep: SweepConfig = SWEEP) -> QualityResult:
    facts = {"scale": "demo", "global_batch_size": 8, "block_size": 128, "validation_tokens": 4096}
    numbers = {"unigram_loss_nats": 6.5, "flops": 1e12, "seconds": 60.0}
    return quality_result(of or study(), sweep, found, models(), **facts, **numbers)  # type: ignore[arg-type]


def claim(found: list[QualityRun], arm: str | None, words: str, of: StudyConfig | None = None) -> Claim:
    (one,) = [one for one in result(found, of).claims if one.arm == arm and words in one.claim]
    return one


def constant(**gaps: float | None) -> Gap:
    return lambda arm, size, tokens: gaps.get(arm, 0.0)


def test_same_tokens_cells_and_laws_of_a_made_study(tmp_path: Path) -> None:
    made = result(runs(constant(kraken_4way=0.3)))
    by_key = {(cell.arm, cell.size, cell.tokens): cell for cell in made.cells}
    assert len(made.cells) == len(by_key) == len(ARMS) * len(CELLS)
    assert [cell.arm for cell in made.cells] == sorted((cell.arm for cell in made.cells), key=list(ARMS).index)
    assert by_key["standard", "m", 200_000].difference_nats is None
    kraken = by_key["kraken_4way", "m", 200_000]
    assert (kraken.seeds, kraken.diverged) == (3, 0)
    assert kraken.loss_nats is not None and kraken.loss_nats.value == pytest.approx(4.4)
    # paired: what a seed does to all arms is no part of the difference's interval
    assert kraken.difference_nats is not None and kraken.difference_nats.low is not None
    assert kraken.difference_nats.low == pytest.approx(0.3 - 4.30265 * 0.002 / 3**0.5, abs=1e-6)
    assert kraken.loss_nats.low is not None and kraken.loss_nats.low < 4.3
    assert {(law.against, law.fixed, law.points) for law in made.laws if law.arm == "ladder"} == {
        ("tokens", "size m", 3),
        ("parameters", "200000 tokens", 3),
        ("layer_parameters", "200000 tokens", 3),
    }
    write(tmp_path / "quality.json", made, {})
    assert read(tmp_path / "quality.json", QualityResult).body() == made.body()


def test_same_tokens_laws_of_a_made_study_are_those_it_was_made_with() -> None:
    flat = [one for one in runs(constant()) if one.arm == "standard"]
    flat = [one.model_copy(update={"loss_nats": (one.loss_nats or 0) - 0.05 * one.seed}) for one in flat]
    laws = {law.against: law for law in result(flat).laws}
    assert laws["tokens"].exponent.value == pytest.approx(0.1)
    assert laws["parameters"].exponent.value == pytest.approx(0.08)
    assert laws["layer_parameters"].exponent.value == pytest.approx(0.08)
    assert laws["parameters"].scale.value == pytest.approx(4.0 * 2_000_000**0.08)


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (0.3, "contradicted"),
        (0.023, "contradicted"),
        (0.021, "open"),
        (0.019, "open"),
        (0.017, "supported"),
        (-0.3, "supported"),
    ],
)
def test_same_tokens_verdict_follows_the_interval_and_the_margin(gap: float, verdict: str) -> None:
    assert claims.MARGIN_NATS == 0.02
    for arm in ARMS:
        if arm != "standard":
            words = "as many parameters in its layers" if arm.endswith("layers") else "as good as"
            against = [one for one in result(runs(constant(**{arm: gap}))).claims if one.arm == arm]
            (one, *_) = [one for one in against if words in one.claim]
            assert one.verdict == verdict, (arm, one)
            assert f"{gap:+.3f} nats [" in one.because and one.number_nats is not None
    one = claim(runs(constant(kraken_2way=gap)), "kraken_2way", "as good as")
    assert one.because.startswith("At size m, 400,000 tokens,")


def test_same_tokens_a_wide_interval_leaves_a_large_gap_open_and_says_how_many_seeds_decide() -> None:
    wide = runs(constant(kraken_4way=0.1), scatter={1: -0.05, 2: 0.0, 3: 0.05})
    one = claim(wide, "kraken_4way", "as good as")
    assert one.verdict == "open"
    # half of the interval of n seeds, t(n−1)·0.05/√n, is first below 0.1 − 0.02 at n = 4: 3.182·0.05/2 = 0.0796
    assert one.settled_by.endswith("; here about 4 seeds.")
    close = claim(runs(constant(kraken_4way=0.0201)), "kraken_4way", "as good as")
    assert close.settled_by.endswith("; here more than 100 seeds.")


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [
        (0.3, 0.1, "supported"),
        (0.2, 0.195, "supported"),
        (0.1, 0.3, "contradicted"),
        (0.2, 0.2, "contradicted"),
        (0.02, -0.1, "open"),  # not surely beyond the margin
    ],
)
def test_same_tokens_gap_that_narrows_flips_with_tokens_and_with_size(first: float, last: float, verdict: str) -> None:
    def by_tokens(arm: str, size: str, tokens: int) -> float:
        return {100_000: first, 200_000: 0.2, 400_000: last}[tokens] if arm == "kraken_4way" else 0.0

    def by_size(arm: str, size: str, tokens: int) -> float:
        return {"s": first, "m": 0.2, "l": last}[size] if arm in ("kraken_4way", "parallel") else 0.0

    assert claim(runs(by_tokens), "kraken_4way", "more tokens").verdict == verdict
    assert claim(runs(by_size), "kraken_4way", "shrinks with size").verdict == verdict
    assert claim(runs(by_size), "parallel", "shrinks with size").verdict == verdict
    because = claim(runs(by_tokens), "kraken_4way", "more tokens").because
    assert f"a change of {last - first:+.3f} nats [" in because and ("No gap beyond" in because) == (first < 0.1)


def test_same_tokens_a_change_that_may_be_large_or_nothing_is_open() -> None:
    def shrinking(arm: str, size: str, tokens: int) -> float:
        return 0.3 - (0.02 if tokens == 400_000 else 0.0) if arm == "kraken_4way" else 0.0

    wide = runs(shrinking, scatter={1: -0.02, 2: 0.0, 3: 0.02})  # a change of −0.02 ± 0.05
    assert claim(wide, "kraken_4way", "more tokens").verdict == "open"


@pytest.mark.parametrize(("two", "four", "verdict"), [(0.1, 0.2, "contradicted"), (0.2, 0.1, "supported")])
def test_same_tokens_more_ways_are_held_against_fewer(two: float, four: float, verdict: str) -> None:
    assert claim(runs(constant(kraken_2way=two, kraken_4way=four)), "kraken_4way", "More ways").verdict == verdict


def without(found: list[QualityRun], arm: str, diverging: tuple[int, ...]) -> list[QualityRun]:
    return [
        one.model_copy(update={"loss_nats": None}) if one.arm == arm and one.seed in diverging else one for one in found
    ]


def test_same_tokens_diverged_runs_are_counted_and_only_speak_against_an_arm() -> None:
    good = runs(constant(kraken_4way=-0.3))
    some = result(without(good, "kraken_4way", (3,)))
    cell = next(cell for cell in some.cells if cell.arm == "kraken_4way" and cell.tokens == 400_000)
    assert (cell.seeds, cell.diverged) == (2, 1)
    survivors = claim(without(good, "kraken_4way", (3,)), "kraken_4way", "as good as")
    assert survivors.verdict == "open" and "1 of its runs diverged" in survivors.because
    bad = claim(without(runs(constant(kraken_4way=0.5)), "kraken_4way", (3,)), "kraken_4way", "as good as")
    assert bad.verdict == "contradicted"

    none = result(without(good, "kraken_4way", (1, 2, 3)))
    cell = next(cell for cell in none.cells if cell.arm == "kraken_4way")
    assert (cell.seeds, cell.diverged, cell.loss_nats, cell.difference_nats) == (0, 3, None, None)
    assert not [law for law in none.laws if law.arm == "kraken_4way"]
    lost = claim(without(good, "kraken_4way", (1, 2, 3)), "kraken_4way", "as good as")
    assert (
        lost.verdict == "contradicted"
        and "every run of kraken_4way diverged where standard ended, 3 seeds" in lost.because
    )

    narrowing = runs(lambda arm, size, tokens: {100_000: 0.3}.get(tokens, 0.1))
    assert claim(narrowing, "kraken_4way", "more tokens").verdict == "supported"
    lost_late = [one for one in narrowing if one.tokens < 400_000]
    lost_late += without([one for one in narrowing if one.tokens == 400_000], "kraken_4way", (3,))
    assert claim(lost_late, "kraken_4way", "more tokens").verdict == "open"


def test_same_tokens_a_diverged_baseline_leaves_every_comparison_with_it_open() -> None:
    found = without(runs(constant(kraken_4way=0.3)), "standard", (1, 2, 3))
    made = result(found)
    assert all(cell.difference_nats is None for cell in made.cells)
    assert {one.verdict for one in made.claims if "standard" in one.claim} == {"open"}
    assert "no law here" in made.margin_reason
    everything = result([one.model_copy(update={"loss_nats": None}) for one in found])
    assert {one.verdict for one in everything.claims} == {"open"} and not everything.laws


def test_same_tokens_one_seed_decides_nothing() -> None:
    made = result(runs(constant(kraken_4way=0.9), scatter={1: 0.0}))
    assert {one.verdict for one in made.claims} == {"open"}
    assert all(law.exponent.low is None for law in made.laws)


def test_same_tokens_says_what_the_margin_is_worth_in_parameters() -> None:
    reason = result(runs(constant())).margin_reason
    # the standard's central loss is 4.1 and its exponent near 0.08: (1 − 0.02/4.1)^(−1/0.08) is 1.06
    assert "standard needs 6% more parameters" in reason


@pytest.mark.parametrize("dropped", [arm for arm in ARMS if arm != "standard"])
def test_same_tokens_alone_keeps_claims_without_their_arms(dropped: str) -> None:
    arms = {arm: settings for arm, settings in ARMS.items() if arm != dropped}
    found = runs(constant(), arms)
    kept, left = (result(found, study(arms, name)).claims for name in ("same_tokens", "ablation_ways"))
    assert {one.verdict for one in kept if one.arm is None} <= {"open"}
    assert all(one.arm in arms for one in left)
    assert [one for one in kept if "no such arm" not in one.because] == left
    assert len(kept) > len(left) or dropped in ("kraken_2way", "kraken_4way")  # its claims are then of one Kraken less


def test_same_tokens_claims_are_of_the_paper_s_kraken_not_of_an_ablation_s() -> None:
    arms: dict[str, dict[str, Any]] = {
        "standard": {},
        "mean": {"model": {**KRAKEN, "n_ways": 4, "mixing": "mean"}},
        "wide": {"model": {"architecture": "kraken", "n_ways": 4}},
        "plain": {"model": {**KRAKEN, "n_ways": 4, "mixing": "sum"}},
    }
    asked = claims.questions(study(arms, "ablation_mixing"), SWEEP)
    assert {one.ours for one in asked if one.ours} == {"plain"}
    of_other_recipe = {**arms, "plain": {**arms["plain"], "warmup_factor": 4.0}}
    assert {one.theirs for one in claims.questions(study(of_other_recipe, "ablation_rate"), SWEEP)} == {None}


def test_same_tokens_refuses_runs_that_stand_twice_or_without_a_model() -> None:
    found = runs(constant())
    with pytest.raises(ValueError, match="standard at size m, 100000 tokens, seed 1: two runs"):
        result([*found, found[0]])
    with pytest.raises(ValueError, match="other at size m: a run without a model"):
        result([*found, found[0].model_copy(update={"arm": "other"})])
    with pytest.raises(ValueError, match="finite"):
        QualityRun(**{**found[0].model_dump(), "loss_nats": float("nan")})
