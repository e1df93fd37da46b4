"""The surface of speedup: a fit gives back what made its rows, and the figure shows the result's numbers."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.benchmark.grid import cells
from pipeline.compose import model_config
from pipeline.errors import ConfigError, ResultError
from pipeline.models.timed import timed_model
from pipeline.projection.fitted_rows import FITTED_ARCHITECTURES
from pipeline.projection.prefill import prefill
from pipeline.projection.surface import _break_even_of, _contexts, _crossing, _Fits, _values, surface
from pipeline.report.build import make_figures, make_tables
from pipeline.report.surface import surface_figure, surface_table
from pipeline.results import BOUND, SurfaceResult
from tests.unit.report_inputs import put, read
from tests.unit.surface_rows import DEVICE, fitted, settings, synthetic

TOLD = ("matmul_flops", "link_efficiency", "link_latency_s", "attention_efficiency", "link_cpu_s_per_byte")


@pytest.fixture(scope="module")
def exact() -> SurfaceResult:
    """Fitted to one launch without noise."""
    return fitted()


@pytest.fixture(scope="module")
def noisy() -> SurfaceResult:
    """Three launches and their rounds vary by 3%."""
    config = settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.projection.surface.LEFT_OUT", ())
        patch.setattr("pipeline.projection.surface.STEPS", 4)
        return surface(synthetic(config, noise=0.03), config.benchmark, model_config)


def test_the_fit_gives_back_the_values_that_made_the_rows(exact):
    found = {name: exact.values[name].value for name in TOLD}
    assert found == pytest.approx({name: getattr(DEVICE, name) for name in TOLD}, rel=0.02)
    assert all(abs(row.error_relative) < 0.005 for row in exact.rows)
    assert all(one.low is None for one in exact.values.values())  # one launch says nothing of launches


def test_noise_moves_predictions_of_held_out_architectures_no_further_than_itself(noisy):
    for name in ("kraken", "ladder"):
        assert noisy.errors[f"held_out_{name}"].mean_absolute_error < 0.03
        assert not any(row.fitted for row in noisy.rows if row.architecture == name)
    for name in TOLD[:-1]:
        one = noisy.values[name]
        assert one.low is not None and one.high is not None and one.low < one.value < one.high
        assert 0.8 < one.low / getattr(DEVICE, name) < one.high / getattr(DEVICE, name) < 1.25


def test_every_second_cell_is_fitted(exact):
    config = settings()
    links = config.link.links
    assert len(exact.rows) == 6 * sum(len(cells(config.benchmark, link)) for link in links)
    for row in exact.rows:
        is_even = (config.benchmark.contexts.index(row.context) + links.index(row.link)) % 2 == 0
        assert row.fitted == (is_even and row.architecture in FITTED_ARCHITECTURES)


def test_what_was_fitted_is_in_no_error_of_what_was_not(exact):
    """The bound depends on no link: its rows in other cells are of times that were fitted."""
    held_out = [row.architecture for row in exact.rows if not row.fitted]
    kept = [name for name in held_out if name in FITTED_ARCHITECTURES and name != BOUND]
    assert BOUND in held_out
    without = {tuple(one.left_out): one.errors for one in exact.without}["attention_efficiency",]
    for errors in (exact.errors, without):
        assert errors["held_out"].rows == len(kept)
        assert errors["fitted"].rows == len(exact.rows) - len(held_out)
    assert {name: one.rows for name, one in exact.speedup_errors.items()} == {
        name: held_out.count(name) for name in ("parallel", "kraken", "ladder", "standard_split")
    }


def test_a_value_is_the_middle_of_its_interval():
    launches = [replace(DEVICE, link_latency_s=latency) for latency in (1e-4, 2e-4, 8e-4)]
    one = _values(_Fits(tuple(launches), "float32"))["link_latency_s"]
    assert one.value == pytest.approx((1e-4 * 2e-4 * 8e-4) ** (1 / 3))
    assert one.value**2 == pytest.approx(one.low * one.high)
    two = _values(_Fits(tuple(launches[:2]), "float32"))["link_latency_s"]
    assert two.value == pytest.approx((1e-4 * 2e-4) ** 0.5) and two.low is None


def test_a_break_even_is_the_middle_of_its_interval_or_has_none():
    rates = [float(rate) for rate in np.geomspace(1, 1000, 4)]
    crossing = [lambda rate, at=at: np.log(at / rate) for at in (20.0, 30.0, 45.0)]
    wins, rate, low, high = _break_even_of(crossing, rates)
    assert (wins, rate) == ("below", pytest.approx((20 * 30 * 45) ** (1 / 3), rel=0.01))
    assert low < rate < high and rate**2 == pytest.approx(low * high)
    always = _break_even_of([*crossing[:2], lambda rate: np.log(2000 / rate)], rates)
    assert always == ("below", pytest.approx((20 * 30 * 2000) ** (1 / 3), rel=0.01), None, None)
    assert _break_even_of([lambda rate: 1.0] * 3, rates) == ("everywhere", None, None, None)


@pytest.mark.parametrize("timed", [{1, 2047}, {63}, {64, 255, 1025}])
def test_contexts_of_the_surface_are_within_those_timed(timed):
    found = _contexts(timed)
    assert timed <= set(found) and (min(found), max(found)) == (min(timed), max(timed))


def test_a_term_that_is_left_out_costs_what_the_result_says(exact):
    """The rows were made with both terms: without them held-out rows are off, and hidden sums seem to be free."""
    left_out = {tuple(one.left_out): one.errors for one in exact.without}
    assert left_out["attention_efficiency",]["held_out_kraken"].mean_absolute_error > 0.05
    assert left_out["link_cpu_s_per_byte",]["held_out_ladder"].bias < -0.02
    assert set(left_out) == {
        ("attention_efficiency",),
        ("link_cpu_s_per_byte",),
        ("attention_efficiency", "link_cpu_s_per_byte"),
    }


def test_points_and_rows_are_of_one_surface(exact):
    """The model's speedup at a timed cell's context and link is the one that the surface has there."""
    at = {(one.architecture, one.context, one.link, one.link_bits_per_s): one for one in exact.points}
    slowest = min(row.link_bits_per_s for row in exact.rows)
    checked = 0
    for row in exact.rows:
        link = row.link if row.link == "loopback" else None
        point = at.get((row.architecture, row.context, link, row.link_bits_per_s))
        if point is not None and (link or row.link_bits_per_s == slowest):
            assert point.speedup == pytest.approx(row.projected_speedup)
            checked += 1
    assert checked == 4 * (4 + 2)  # four architectures: loopback's contexts, and those of the slowest link


def test_break_even_is_where_times_are_equal(exact):
    found = [one for one in exact.break_even if one.link_bits_per_s is not None]
    assert any(one.architecture == "kraken" and one.against == "standard" and one.wins == "below" for one in found)
    device = replace(DEVICE, **{name: one.value for name, one in exact.values.items()})
    config = settings().benchmark
    for one in found:
        rate = one.link_bits_per_s / 8
        times = [
            prefill(
                timed_model(config, config.shapes[0], name, 2, model_config),
                replace(device, link_bandwidth=rate),
                *(one.context, 2, 1, "float32"),
                gather_logits=False,
            ).timeline.seconds
            for name in (one.architecture, one.against)
        ]
        assert times[0] / times[1] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.2, 0.1, 0.1], ("everywhere", None)),
        ([-0.2, -0.1, -0.1], ("nowhere", None)),
        ([0.2, 0.1, -0.1], ("below", pytest.approx(10**1.5, rel=0.01))),
        ([-0.1, 0.1, 0.2], ("above", pytest.approx(10**0.5, rel=0.01))),
    ],
)
def test_crossings_by_hand(gains, expected):
    by_rate = [(0.0, gains[0]), (1.0, gains[1]), (2.0, gains[2])]  # straight lines between, by the rate's logarithm
    found = _crossing([1.0, 10.0, 100.0], lambda rate: float(np.interp(np.log10(rate), *zip(*by_rate, strict=True))))
    assert found == expected


def test_moving_bytes_takes_the_computing_core():
    """By hand: a hidden sum adds its CPU seconds; over a link without a limit nothing is hidden at all."""
    model = model_config("demo_kraken_2way")
    free = replace(DEVICE, link_bandwidth=1e12, link_latency_s=0.0, link_cpu_s_per_byte=0.0)
    dear = replace(free, link_cpu_s_per_byte=1e-6)
    size = (128, 2, 1, "float32")
    added = prefill(model, dear, *size).timeline.seconds - prefill(model, free, *size).timeline.seconds
    assert added == pytest.approx(1e-6 * prefill(model, dear, *size).collective_bytes, rel=0.01)


def test_too_few_rows_are_one_message():
    config = settings("benchmark.launches=1", "link.links=[1gbit]", "benchmark.architectures=[standard,kraken]")
    found = synthetic(config)
    few = found.model_copy(update={"rows": [row for row in found.rows if row.context == 64]})
    with pytest.raises(ResultError, match="time more contexts or links"):
        surface(few, config.benchmark, model_config)


def test_a_fit_without_an_overlapping_baseline_has_no_second_line(monkeypatch):
    monkeypatch.setattr("pipeline.projection.surface.LEFT_OUT", ())
    monkeypatch.setattr("pipeline.projection.surface.STEPS", 4)
    config = settings("benchmark.launches=1", "benchmark.architectures=[standard,parallel,kraken]")
    found = surface(synthetic(config), config.benchmark, model_config)
    assert {one.against for one in found.break_even} == {"standard"}
    assert {one.speedup_over_split for one in found.points} == {None}
    assert surface_figure("x", found, "") is not None


def test_contexts_of_a_link_are_some_of_all():
    with pytest.raises(ConfigError, match=r"contexts_by_link.100mbit=\[128\]: must be some of contexts"):
        settings("benchmark.contexts_by_link={100mbit: [128]}")
    with pytest.raises(ConfigError, match="1000mbits is no link; must be loopback or a rate"):
        settings("benchmark.contexts_by_link={1000mbits: [256]}")


def test_the_figure_and_the_table_show_the_results_numbers(noisy):
    figure, table = surface_figure("x", noisy, ""), surface_table("x", noisy, "")
    assert figure is not None and table is not None
    text = figure.svg.decode()
    for row in noisy.rows:
        if row.architecture not in ("standard", BOUND):
            assert f">{round(100 * row.measured_speedup):+d}<" in text
    assert f"{noisy.errors['held_out_kraken'].mean_absolute_error:.1%}" in figure.caption
    assert [row["context"] for row in table.rows] == [one.context for one in noisy.break_even]
    assert {row["kind"] for row in table.rows} == {"projected"}


def test_the_report_reads_it_by_its_name_and_draws_it(exact, tmp_path):
    put(tmp_path, "surface-ttft_surface-surface.json", exact)
    inputs = read(tmp_path)
    assert list(inputs.surfaces) == ["ttft_surface-surface"]
    reference = settings().reference
    tables = make_tables(inputs, reference)
    assert "surface_ttft_surface-surface" in [table.name for table in tables]
    assert "surface_ttft_surface-surface" in [one.name for one in make_figures(inputs, reference, tables)]
    put(tmp_path, "surface-ttft_demo.json", exact)
    assert any("is of benchmark ttft_surface" in fault for fault in read(tmp_path).faults)
