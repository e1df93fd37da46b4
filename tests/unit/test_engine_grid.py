"""From a benchmark's grid to built engines: what is missing is named with its command, rows make a result file."""

import json

import pytest

from pipeline.benchmark.built import grid as engine_grid
from pipeline.benchmark.built.grid import find, measure_engines
from pipeline.benchmark.built.ttft import VERIFIED, engine_rows
from pipeline.benchmark.grid import expand
from pipeline.benchmark.result import make_result
from pipeline.benchmark.text import headline_text, ttft_table
from pipeline.compose import compose, model_config
from pipeline.config.engine import EngineConfig
from pipeline.errors import CheckpointError, ConfigError, MissingRequirementError
from pipeline.export.spec import EngineSpec
from pipeline.results import TtftResult, read, write
from tests.unit.result_files import PROVENANCE, built_engine

ARCHITECTURES = {"standard": "demo_standard", "parallel": "demo_parallel", "kraken": "demo_kraken_4way"}


@pytest.fixture
def benchmark():
    return compose(["benchmark=ttft_engines", f"benchmark.architectures=[{','.join(ARCHITECTURES)}]"]).benchmark


def built(root, name, tp_size=4, **changes):
    """The folder that build_engine would leave, without the engines' bytes."""
    given = {"name": "tensorrt", "tp_size": tp_size, **changes}
    spec = EngineSpec.of(model_config(name), EngineConfig.model_validate(given))
    folder = root / f"{name}-tp{tp_size}-tensorrt"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec.body()))
    engine = built_engine(name, ranks=tp_size, mode=spec.mode, dtype=spec.dtype)
    write(folder / "engine.json", engine, PROVENANCE)
    return engine


def grid_of(benchmark):
    return expand(benchmark, model_config)


def test_all_missing_engines_are_named_with_their_commands(benchmark, tmp_path):
    built(tmp_path, "demo_standard")
    with pytest.raises(CheckpointError) as caught:
        find(benchmark, grid_of(benchmark), tmp_path)
    text = str(caught.value)
    assert text.count("no engine in") == 2
    assert "stages.build_engine model=demo_kraken_4way engine=tensorrt engine.tp_size=4 engine.dtype=float16" in text
    assert "demo_standard-tp4" not in text


def test_the_command_it_names_composes(benchmark, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        find(benchmark, grid_of(benchmark), tmp_path)
    line = next(one for one in str(caught.value).splitlines() if "stages.build_engine model=demo_kraken" in one)
    config = compose(line.split("stages.build_engine ", 1)[1].split())
    assert (config.model.name, config.engine.mode, config.engine.module) == (
        "demo_kraken_4way",
        "segmented",
        "tensorrt",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float32"}, "dtype=float32, not float16"),
        ({"max_input_len": 64}, "max_input_len=64, not 256"),
        ({"max_batch_size": 1}, "max_batch_size=1, not 2"),
    ],
)
def test_engines_that_do_not_fit_the_benchmark_are_refused(benchmark, tmp_path, changes, message):
    for name in ARCHITECTURES.values():
        built(tmp_path, name, **(changes if name == "demo_parallel" else {}))
    asked = benchmark.model_copy(update={"batch_sizes": [2]})
    with pytest.raises(CheckpointError, match=f"demo_parallel-tp4-tensorrt has {message}"):
        find(asked, grid_of(asked), tmp_path)


def test_an_engine_of_fewer_layers_is_refused(benchmark, tmp_path):
    for name in ARCHITECTURES.values():
        built(tmp_path, name)
    shapes = [benchmark.shapes[0].model_copy(update={"n_layer": 2})]
    asked = benchmark.model_copy(update={"shapes": shapes})
    with pytest.raises(CheckpointError, match="n_layer=4, not 2"):
        find(asked, grid_of(asked), tmp_path)


def test_folders_are_found_by_ranks_and_size(benchmark, tmp_path):
    for name in ARCHITECTURES.values():
        built(tmp_path, name)
    found = find(benchmark, grid_of(benchmark), tmp_path)
    assert list(found) == [(4, "demo")]
    assert {key: path.name for key, path in found[4, "demo"].items()} == {
        key: f"{name}-tp4-tensorrt" for key, name in ARCHITECTURES.items()
    }


@pytest.mark.parametrize(
    ("update", "message"),
    [({"protocol": "one_rank"}, "only ranks"), ({"decode_tokens": 4}, "the first token only; 0 would be")],
)
def test_what_engines_cannot_do_is_refused(benchmark, update, message):
    with pytest.raises(ConfigError, match=message):
        engine_grid.check(benchmark.model_copy(update=update))


def test_without_gpus_it_ends_before_any_folder_is_looked_at(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    engine = EngineConfig.model_validate({"name": "tensorrt"})
    with pytest.raises(MissingRequirementError, match=r"4 CUDA GPUs are needed.*1 are here"):
        measure_engines(benchmark, engine, grid_of(benchmark), tmp_path / "nowhere", "demo", print)


def test_rows_make_a_result_file_that_the_table_prints(benchmark, tmp_path):
    engines = {key: built(tmp_path, name) for key, name in ARCHITECTURES.items()}
    answer = {
        "samples_ms": {"standard": [[4.0, 4.1, 4.2]], "parallel": [[3.0, 3.1, 3.2]], "kraken": [[2.0, 2.1, 2.2]]},
        "warmup_rounds": 2,
        "ranks_agree": {},
    }
    result = make_result(benchmark, "demo", engine_rows(engines, answer, 128, 1, "demo"), VERIFIED)
    assert result.verified == VERIFIED
    entry = next(one for one in result.headline.all if one.architecture == "kraken")
    assert entry.geomean_speedup == pytest.approx(4.1 / 2.1 - 1)
    assert result.headline.named == []  # none are named
    assert "kraken" in ttft_table(result.rows) and "kraken +95.2%" in headline_text(result.headline)
    write(tmp_path / "ttft.json", result, PROVENANCE)
    assert read(tmp_path / "ttft.json", TtftResult).rows == result.rows
