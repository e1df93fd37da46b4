"""What a surface is fitted to is known before anything is timed, and a surface that was not made is made later."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import surface_fit
from pipeline.compose import model_config
from pipeline.config.execution import PathsConfig
from pipeline.errors import ConfigError, ResultError, RunError
from pipeline.experiment.stages import BY_NAME
from pipeline.experiment.work import Work
from pipeline.models.timed import timed_model
from pipeline.projection.fitted_rows import check, fitted_cells
from pipeline.results import SurfaceResult, read
from stages import benchmark_ttft
from tests.unit.report_inputs import put
from tests.unit.surface_rows import settings, synthetic

LOG = SimpleNamespace(log_artifact=lambda path: None, log_metrics=lambda metrics: None)
EMPTY = SurfaceResult(
    benchmark="ttft_surface",
    scale="demo",
    size="124M",
    batch_size=1,
    tp_size=2,
    launches=1,
    method="none",
    values={},
    errors={},
    speedup_errors={},
    without=[],
    rows=[],
    points=[],
    break_even=[],
)


def work_in(folder: Path, *overrides: str) -> Work:
    paths = PathsConfig.model_validate({name: f"{folder}/{name}" for name in PathsConfig.model_fields})
    return Work(BY_NAME["benchmark_ttft"], settings(*overrides).model_copy(update={"paths": paths}))


def test_links_of_equal_rate_are_in_the_order_of_their_names():
    cells = [(context, link) for context in (64, 256) for link in ("loopback", "1gbit", "1000mbit")]
    assert fitted_cells(cells) == {(64, "1000mbit"), (256, "1gbit"), (64, "loopback")}


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["link.links=[1gbit,loopback+2ms]"], "link.links=['loopback+2ms']"),
        (
            ["link.links=[loopback]", "benchmark.architectures=[standard,kraken]"],
            "4 rows to fit cannot tell 7 values: time more contexts or links",
        ),
        (["benchmark.protocol=one_rank"], "surface=true: is fitted to ranks that meet"),
        (["benchmark.engine=tensorrt"], "surface=true: is fitted to ranks that meet"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_work(tmp_path, overrides, part):
    with pytest.raises(ConfigError) as caught:
        benchmark_ttft.check([work_in(tmp_path, *overrides)])
    assert part in str(caught.value) and caught.value.exit_code == 2


def test_a_fit_with_a_term_left_out_counts_its_own_rows():
    """Rows of the overlapping baseline do not help the fits that leave it out."""
    cells = [(context, link) for context in (64, 256, 1024) for link in ("1gbit", "loopback")]
    check(cells, ["standard", "parallel", "standard_split"])
    with pytest.raises(ConfigError, match="4 rows to fit cannot tell 6 values"):
        check([(context, "1gbit") for context in range(64, 72)], ["standard", "standard_split", "kraken"])


def test_ranks_that_take_turns_have_no_surface(tmp_path):
    (fault,) = benchmark_ttft.check([work_in(tmp_path, "cluster.threads_per_rank=9999")])
    assert fault.startswith("benchmark.surface=true: 2 ranks have too few cores")


def test_a_surface_that_failed_is_made_from_the_rows_that_were_timed(tmp_path, monkeypatch):
    timed, fits = [], [RunError("out of memory"), EMPTY]

    def measure(work, grid):
        timed.append(work)
        return synthetic(work.config)

    def fit(*_):
        found = fits.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(benchmark_ttft, "_ranks", measure)
    monkeypatch.setattr("pipeline.projection.surface.surface", fit)
    path = work_in(tmp_path).path("surface")
    path.parent.mkdir(parents=True)
    path.write_text("of rows timed before")
    with pytest.raises(RunError):
        benchmark_ttft.run(work_in(tmp_path), LOG)
    assert work_in(tmp_path).state().name == "missing" and not path.exists()
    assert work_in(tmp_path).result_state().name == "done"
    benchmark_ttft.run(work_in(tmp_path), LOG)
    assert read(path, SurfaceResult).provenance["body"] and len(timed) == 1
    assert work_in(tmp_path).is_done()


def test_a_benchmark_without_a_surface_is_done_without_one(tmp_path):
    work = work_in(tmp_path, "benchmark.surface=false")
    assert work.paths(*work.stage.outputs) == [work.result]


def test_rows_of_other_settings_are_fitted_again(tmp_path, monkeypatch, capsys):
    """The rows say which models, layers and contexts were timed, whatever the shipped benchmark has."""
    config = settings("benchmark.contexts=[64,128,256,1024,2048]", "benchmark.architectures=[standard,ladder]")
    put(tmp_path, "ttft-ttft_surface~123456-surface.json", synthetic(config))
    given = []
    monkeypatch.setattr(surface_fit, "surface", lambda *arguments: given.append(arguments) or EMPTY)
    path = surface_fit.fit_again(tmp_path / "results/demo/ttft-ttft_surface~123456-surface.json")
    assert path.name == "surface-ttft_surface~123456-surface.json" and read(path, SurfaceResult).size == "124M"
    (_, found, _), wanted = given[0], config.benchmark
    assert (found.architectures, found.contexts) == (wanted.architectures, wanted.contexts)
    for label in wanted.architectures:
        models = [timed_model(one, one.shapes[0], label, 2, model_config) for one in (found, wanted)]
        assert models[0] == models[1] and models[0].n_layer == 3
    assert "ladder cpu_ladder_2048" in capsys.readouterr().out


def test_rows_of_models_that_conf_lacks_are_not_fitted_again(tmp_path):
    result = synthetic(settings())
    rows = [row.model_copy(update={"model": f"my_{row.model}"}) for row in result.rows]
    put(tmp_path, "ttft-ttft_surface-surface.json", result.model_copy(update={"rows": rows}))
    with pytest.raises(ResultError, match="standard was timed as my_cpu_standard_2048"):
        surface_fit.fit_again(tmp_path / "results/demo/ttft-ttft_surface-surface.json")
    with pytest.raises(ResultError, match="must be a file of rows"):
        surface_fit.fit_again(tmp_path / "projection-x.json")
