"""Loss against TTFT: the line through the standard models, gains with intervals that cover, times of real ranks."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pipeline.benchmark.grid import Cell, cells, decode_cells, serving_cells
from pipeline.compose import compose, model_config, shipped
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError, MissingRequirementError
from pipeline.projection.hardware import Hardware
from pipeline.projection.prefill import prefill
from pipeline.results.file import read, write
from pipeline.results.quality import Estimate, QualityCell, QualityResult, QualityRun
from pipeline.results.seeds import estimate
from pipeline.results.trade import TradeResult, TradeRow, TradeSetting
from pipeline.study import arms, times, trade

SIZES = ("s", "m", "l")
ROUNDS = 12


def timed(milliseconds: dict[tuple[str, str], list[float]], kind="measured") -> times.Times:
    """Times by (arm, size)."""
    rounds: dict[str, dict[str, list[float]]] = {}
    for (arm, size), own in milliseconds.items():
        rounds.setdefault(size, {})[arm] = own
    return times.Times(TradeSetting(kind=kind, where="here", tp_size=2, context=16, batch_size=1), rounds)


def losses(by_seed: dict[tuple[str, str], list[float]]) -> dict[tuple[str, str], trade.Losses]:
    return {key: trade.Losses(estimate(own), dict(enumerate(own))) for key, own in by_seed.items()}


def rows(by_seed, milliseconds, kind="measured") -> dict[tuple[str, str], TradeRow]:
    found = trade.trade_rows(losses(by_seed), timed(milliseconds, kind), "standard")
    return {(row.arm, row.size): row for row in found}


def test_the_line_is_straight_in_log_time_between_sizes_in_whatever_order():
    generator = np.random.default_rng(0)
    at, points = generator.normal(size=50), generator.normal(size=(50, 4))
    values = generator.normal(size=4)
    found = trade.line_shares(at, points) @ values
    for here, place, value in zip(at, points, found, strict=True):
        order = np.argsort(place)
        if place.min() <= here <= place.max():
            assert value == pytest.approx(np.interp(here, place[order], values[order]))
        else:  # the last stretch goes on
            two = order[:2] if here < place.min() else order[-2:]
            slope, offset = np.polyfit(place[two], values[two], 1)
            assert value == pytest.approx(slope * here + offset, abs=1e-6)
    assert trade.line_shares(np.zeros(1), np.zeros((1, 2))).tolist() == [[0.5, 0.5]]  # two sizes of one speed


def test_beyond_the_standard_sizes_nothing_is_said():
    same = [3.0, 3.1]
    by_seed = {(arm, size): same for arm in ("standard", "fast", "between") for size in SIZES}
    at = {"s": 1.0, "m": 4.0, "l": 16.0}
    exact = {("standard", size): [at[size]] for size in SIZES}
    exact |= {("fast", size): [at[size] / 2] for size in SIZES} | {("between", size): [8.0] for size in SIZES}
    by_seed |= {("standard", "m"): [2.0, 2.0], ("standard", "l"): [1.0, 1.0]}
    found = rows(by_seed, exact, "projected")
    assert found["fast", "s"].standard_loss_nats is None and found["fast", "s"].gain_nats is None
    assert found["fast", "s"].speedup == pytest.approx(1.0)
    assert found["between", "s"].standard_loss_nats == pytest.approx(1.5)  # 8 is halfway from 4 to 16
    assert found["between", "s"].gain_nats.value == pytest.approx(1.5 - 3.05)
    assert found["between", "s"].ttft_ms == Estimate(value=8.0, low=None, high=None)
    for size, loss in (("s", 3.05), ("m", 2.0), ("l", 1.0)):
        assert found["standard", size].standard_loss_nats == loss
        assert found["standard", size].gain_nats is None


def test_at_a_standard_models_own_time_the_gain_is_the_paired_difference():
    generator = np.random.default_rng(1)
    tokens = generator.normal(0, 0.5, 4)  # what the runs of a seed share
    by_seed = {("standard", size): (tokens + generator.normal(3, 0.02, 4)).tolist() for size in SIZES}
    by_seed["kraken", "m"] = (tokens + generator.normal(3, 0.02, 4)).tolist()
    exact = {("standard", size): [at] for size, at in zip(SIZES, (1.0, 2.0, 4.0), strict=True)}
    found = rows(by_seed, exact | {("kraken", "m"): [2.0]}, "projected")["kraken", "m"].gain_nats
    paired = stats.ttest_rel(by_seed["standard", "m"], by_seed["kraken", "m"]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(paired), abs=1e-9)
    assert found.high - found.low < 0.3  # the tokens' share, which both have, is not in it


@pytest.mark.parametrize(("n_seeds", "n_rounds"), [(1, ROUNDS), (3, 5)])
def test_no_interval_of_one_seed_or_few_rounds(n_seeds, n_rounds):
    by_seed = {("standard", size): [3.0 + seed for seed in range(n_seeds)] for size in SIZES}
    by_seed["kraken", "m"] = [2.0 + seed for seed in range(n_seeds)]
    milliseconds = {("standard", size): [at] * n_rounds for size, at in zip(SIZES, (1.0, 2.0, 4.0), strict=True)}
    row = rows(by_seed, milliseconds | {("kraken", "m"): [2.0] * n_rounds})["kraken", "m"]
    assert row.gain_nats == Estimate(value=1.0, low=None, high=None)
    assert trade.finding(row, 1.0) == "undecided"


@pytest.mark.parametrize("time_noise", [0.01, 0.05])
def test_the_interval_of_a_gain_covers_it(time_noise):
    """The truth is what means and medians without noise give; seeds and rounds scatter, each shared in part."""
    generator = np.random.default_rng(2)
    at = {("standard", "s"): 5.0, ("standard", "m"): 9.0, ("standard", "l"): 20.0, ("kraken", "m"): 7.0}
    true = {("standard", "s"): 4.0, ("standard", "m"): 3.8, ("standard", "l"): 3.5, ("kraken", "m"): 3.85}
    share = np.log(7 / 5) / np.log(9 / 5)
    truth = 4.0 + share * (3.8 - 4.0) - 3.85
    covered, studies = 0, 400
    for _ in range(studies):
        tokens = generator.normal(0, 0.02, 3)
        by_seed = {key: (value + tokens + generator.normal(0, 0.02, 3)).tolist() for key, value in true.items()}
        drift = {size: generator.normal(0, time_noise, 16) for size in SIZES}
        rounds = {
            key: (value * np.exp(drift[key[1]] + generator.normal(0, time_noise, 16))).tolist()
            for key, value in at.items()
        }
        known, measured = losses(by_seed), timed(rounds)
        own, *line = (
            trade.Point(known[key], measured.median_ms(*key), measured.resampled_ms(*key))
            for key in (("kraken", "m"), *(("standard", size) for size in SIZES))
        )
        found = trade.gain(own, line)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / studies <= 0.98


def row(arm, size, gained, kind="measured", ms=1.0) -> TradeRow:
    return TradeRow(
        kind=kind,
        arm=arm,
        size=size,
        loss_nats=Estimate(value=1.0, low=None, high=None),
        ttft_ms=Estimate(value=ms, low=None, high=None),
        speedup=0.0,
        standard_loss_nats=None if gained is None else 1.0,
        gain_nats=None if gained is None else Estimate(value=sum(gained) / 2, low=gained[0], high=gained[1]),
    )


def test_the_verdict_names_what_is_better_worse_undecided_and_not_compared():
    found = [row("standard", "s", None), row("standard", "m", None, ms=2.0), row("kraken", "s", None, ms=0.5)]
    found += [row("kraken", "m", (0.1, 0.3)), row("kraken", "l", (0.2, 0.4)), row("desync", "l", None, ms=3.0)]
    found += [row("ladder", "s", (-0.2, -0.1)), row("desync", "s", (-0.1, 0.1))]
    found += [row("standard", "s", None, "projected"), row("kraken", "s", None, "projected", ms=0.5)]
    assert trade.verdict(found, "standard") == (
        "Beside a standard model of the same TTFT (measured), better: kraken (m, l); worse: ladder (s); undecided: "
        "desync (s); not compared, as faster than every standard model here: kraken (s); not compared, as slower than "
        "every standard model here: desync (l); each of 4 comparisons at 95%, not corrected for their number. "
        "Beside a standard model of the same TTFT (projected), not compared, as faster than every standard model here: "
        "kraken (s)."
    )


def small(architecture: str, n_embd: int, n_ways: int = 1) -> ModelConfig:
    expansion = 2 if architecture == "kraken" else 4
    return ModelConfig(
        name=f"{architecture}_{n_ways}_{n_embd}",
        architecture=architecture,
        n_layer=2,
        n_head=4,
        n_embd=n_embd,
        n_ways=n_ways,
        ffn_expansion=expansion,
        block_size=32,
        vocab_size=64,
    )


@pytest.fixture
def models() -> arms.Models:
    found = {}
    for size, n_embd in zip(SIZES, (32, 64, 128), strict=True):
        found["standard", size] = small("standard", n_embd)
        found["kraken_2way", size] = small("kraken", n_embd // 2, 2)
        found["kraken_4way", size] = small("kraken", n_embd // 2, 4)
    found["ladder", "m"] = small("ladder", 64)  # an arm of one size
    return found


def setting(**changes):
    config = compose(["cluster=local_cpu"])
    short = {"repeats_min": 6, "repeats_max": 8, "warmup_max": 2, "time_limit_s": 5.0, "rank_timeout_s": 60.0}
    return config.benchmark.model_copy(update={**short, **changes}), config.link, config.cluster


def test_ranks_are_the_most_that_every_arm_can_be_split_over(models, monkeypatch):
    benchmark, _, cluster = setting()
    monkeypatch.setattr(times.ttft, "resources", lambda cluster, n: times.ttft.Resources("cpu", 1, [], n > 4))
    every = list(models.values())
    four = [model for model in every if model.n_ways != 2]
    assert times.choose_ranks(every, benchmark.model_copy(update={"tp_sizes": [4, 8]}), cluster) == 2
    assert times.choose_ranks(four, benchmark.model_copy(update={"tp_sizes": [2, 8]}), cluster) == 4
    assert times.choose_ranks(four, benchmark.model_copy(update={"tp_sizes": [2]}), cluster) == 2
    monkeypatch.setattr(times.ttft, "resources", lambda cluster, n: times.ttft.Resources("cpu", 1, [], n > 1))
    assert times.choose_ranks(four, benchmark, cluster) == 2  # not one has cores of its own: the fewest
    three = [*every, small("kraken", 33, 3).model_copy(update={"n_head": 3})]
    with pytest.raises(ConfigError, match=r"tp_sizes=\[2, 4\]: no number of ranks from 2 to 4 .* divide the 3 ways"):
        times.choose_ranks(three, benchmark, cluster)
    with pytest.raises(ConfigError, match=r"tp_sizes=\[1\]: no number of ranks from 2"):
        times.choose_ranks(four, benchmark.model_copy(update={"tp_sizes": [1]}), cluster)


def test_what_arms_cannot_be_timed_with_is_said_before(models):
    benchmark, link, cluster = setting()
    with pytest.raises(ConfigError, match=r"benchmark.engine=tensorrt: .* torch would be right"):
        times.plan(models, "standard", benchmark.model_copy(update={"engine": "tensorrt"}), cluster)
    planned = times.plan(models, "standard", benchmark, cluster)
    with pytest.raises(ConfigError, match=r"link.links=\['loopback', '1gbit'\]: .*link=loopback would be right"):
        planned.check(link.model_copy(update={"links": ["loopback", "1gbit"]}), cluster)
    on_gpus = cluster.model_copy(update={"device": "cuda"})
    with pytest.raises(MissingRequirementError, match="2 CUDA GPUs are needed"):
        times.plan(models, "standard", benchmark.model_copy(update={"tp_sizes": [99]}), on_gpus).check(link, on_gpus)


def test_arms_are_timed_at_one_prompt_whatever_the_benchmark_is_about(models):
    every = {
        "contexts": [64, 128],
        "contexts_by_link": {"loopback": [128]},
        "decode_tokens": 4,
        "concurrencies": [1, 2],
        "wires": ["float32", "int8"],
        "surface": True,
        "headline_links": ["1gbit"],
        "headline_contexts": [64],
    }
    benchmark, _, cluster = setting(**every)
    benchmark = benchmark.model_copy(update={"wire_errors": benchmark.shapes[0]})
    planned = times.plan(models, "standard", benchmark, cluster).benchmark
    assert cells(planned, "loopback") == [Cell(32, 1)]
    assert not serving_cells(planned, "loopback") and not decode_cells(planned)
    assert planned.wires == ["float32"] and planned.wire_errors is None and not planned.surface
    type(planned).model_validate(planned.model_dump())  # no part of it is about another


def test_projected_times_are_those_of_the_projection_over_four_ranks_where_all_can_be_split(models):
    benchmark, _, cluster = setting()
    hardware = Hardware.from_config(shipped("hardware", "h100_sxm"))  # type: ignore[arg-type]
    found = times.plan(models, "standard", benchmark, cluster).project(hardware)
    assert (found.setting.kind, found.setting.tp_size, found.setting.context) == ("projected", 2, 32)
    expected = prefill(models["kraken_4way", "l"], hardware, 32, 2, 1, "float16").timeline.seconds * 1e3
    assert found.rounds["l"]["kraken_4way"] == [expected]
    without = {key: model for key, model in models.items() if key[0] != "kraken_2way"}
    assert times.plan(without, "standard", benchmark, cluster).project(hardware).setting.tp_size == 4


def quality(models: arms.Models, diverged: tuple[str, str] | None = None) -> QualityResult:
    """Losses that fall with the size, a seed's runs alike; those of other token counts must not be read."""
    generator = np.random.default_rng(3)
    runs, cells = [], []
    for arm, size in models:
        for tokens in (100, 200):
            own: list[float | None] = [
                None if (arm, size) == diverged else 4 - SIZES.index(size) / 4 + tokens + generator.normal(0, 0.01)
                for _ in range(3)
            ]
            about = {"kind": "measured", "arm": arm, "size": size, "tokens": tokens}
            runs += [QualityRun(**about, seed=i, loss_nats=one, seconds=1, run="r") for i, one in enumerate(own)]
            ended = [one for one in own if one is not None]
            mean = estimate(ended) if ended else None
            cells.append(
                QualityCell(**about, seeds=len(ended), diverged=3 - len(ended), loss_nats=mean, difference_nats=None)
            )
    about = {"study": "one", "scale": "demo", "baseline": "standard", "central_tokens": 100}
    return QualityResult.model_construct(**about, runs=runs, cells=cells)  # no more of it is read


def test_losses_are_those_of_the_central_tokens_and_of_runs_that_ended(models):
    found = trade.central_losses(quality(models, diverged=("ladder", "m")))
    assert set(found) == set(models) - {("ladder", "m")}
    assert all(100 < own.mean.value < 105 and set(own.by_seed) == {0, 1, 2} for own in found.values())


@pytest.mark.slow
def test_arms_of_one_architecture_meet_in_one_cell_of_real_ranks(models, tmp_path: Path):
    benchmark, link, cluster = setting()
    planned = times.plan(models, "standard", benchmark, cluster)
    planned.check(link, cluster)
    hardware = Hardware.from_config(shipped("hardware", "h100_sxm"))  # type: ignore[arg-type]
    measured = planned.measure(link, cluster, hardware, lambda line: None)
    assert list(measured.rounds) == list(SIZES)
    for size, cell in measured.rounds.items():
        assert set(cell) == {arm for arm, its in models if its == size} and next(iter(cell)) == "standard"
        counts = {len(one) for one in cell.values()}
        assert len(counts) == 1 and 3 <= counts.pop() <= 8  # one series each of the same rounds
    assert measured.setting.where.startswith("2 ranks on cpu in float32 over loopback (socket)")
    found = trade.result(quality(models), [measured, planned.project(hardware)])
    write(tmp_path / "trade.json", found, {})
    again = read(tmp_path / "trade.json", TradeResult)
    assert [one.kind for one in again.settings] == ["measured", "projected"]
    assert [(one.arm, one.size) for one in again.rows[:3]] == [
        ("standard", "s"),
        ("kraken_2way", "s"),
        ("kraken_4way", "s"),
    ]
    assert len(again.rows) == 2 * len(models)
    for one in again.rows:
        standard = measured.rounds[one.size]["standard"]
        if one.kind == "measured":
            own = measured.rounds[one.size][one.arm]
            assert one.speedup == pytest.approx(np.median(standard) / np.median(own) - 1)


def test_a_shares_benchmark_times_one_rank_with_the_link_modelled(models):
    benchmark, link, cluster = setting(protocol="one_rank", repeats_min=3, repeats_max=3)
    few = {key: model for key, model in models.items() if key[1] == "s"}
    planned = times.plan(few, "standard", benchmark, cluster)
    planned.check(link, cluster)
    hardware = Hardware.from_config(shipped("hardware", "h100_sxm"))  # type: ignore[arg-type]
    found = planned.measure(link, cluster, hardware, lambda line: None)
    assert found.setting.kind == "measured compute, modelled communication"
    assert (found.setting.tp_size, "modelled h100_sxm" in found.setting.where) == (2, True)
    assert not found.have_intervals  # three rounds


def test_the_shipped_study_can_be_timed():
    config = compose(["+experiment=same_tokens"])
    assert config.study is not None
    found = arms.models(config.study, config.sweep, model_config)
    planned = times.plan(found, config.study.baseline, config.benchmark, config.cluster)
    assert (planned.tp_size, planned.context) == (2, 256)
