"""Result files: typed, of a named schema, written whole, and refused in one line where they are anything else."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import files
from pipeline.errors import ResultError
from pipeline.export import folder as engine_folder
from pipeline.results import KINDS, RESULTS, Result, TtftResult, read, schema, write
from tests.unit import result_files as real
from tests.unit import study_results as study
from tests.unit import surface_rows
from tests.unit.result_files import PROVENANCE


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """One of every kind, from the writers."""
    root = tmp_path_factory.mktemp("results")
    found = [
        real.training(root, "demo_standard"),
        real.perplexity(root, "demo_standard"),
        real.superglue(root, "demo_standard"),
        real.ttft(root),
        real.one_rank(root),
        real.projection(root),
        real.engine(root, "demo_standard"),
        study.search(),
        study.quality(),
        study.trade(),
        surface_rows.fitted(),
    ]
    return {type(result).__name__: result for result in found}


def test_result_schemas_in_docs_are_those_of_the_types() -> None:
    committed = {path.name: path.read_text() for path in schema.FOLDER.iterdir()}
    assert committed == schema.pages(), "python -m pipeline.results.schema writes them"


def test_every_result_schema_has_a_writer(results: dict[str, Result]) -> None:
    assert set(results) == {kind.__name__ for kind in RESULTS}


@pytest.mark.parametrize("kind", RESULTS)
def test_result_schema_survives_the_file(kind: type[Result], results: dict[str, Result], tmp_path: Path) -> None:
    result = results[kind.__name__]
    write(tmp_path / "r.json", result, PROVENANCE)
    again = read(tmp_path / "r.json", kind)
    assert again.provenance == PROVENANCE
    assert again.model_copy(update={"provenance": None}) == result


@pytest.mark.parametrize("kind", RESULTS)
def test_result_schema_describes_every_field(kind: type[Result], results: dict[str, Result]) -> None:
    """Each field says what it is, and the file's keys are the schema's."""
    described = schema.schema(kind)
    for name, part in {kind.__name__: described, **described.get("$defs", {})}.items():
        for key, field in part.get("properties", {}).items():
            assert field.get("description"), f"{name}.{key}"
    assert set(results[kind.__name__].body()) | {"provenance"} == set(described["properties"])
    assert described["properties"]["schema_version"]["const"] >= 1


def test_result_schema_keeps_the_keys_that_others_rely_on(results: dict[str, Result]) -> None:
    promised = {
        "TtftResult": "architecture size context tp_size engine link ttft_ms_median ttft_ms_p95 speedup compute_ms "
        "exposed_communication_ms hideable_ms share_hidden repeats kind samples_ms n_layer model mode device dtype "
        "transport threads_per_rank pinned_cores weights",
        "ProjectionResult": "architecture size context tp_size projected_ms published_ms fitted kind",
    }
    for name, keys in promised.items():
        for row in results[name].body()["rows"]:
            assert set(keys.split()) <= set(row)
    assert {"loss_nats", "perplexity", "standard_error_nats", "tokens"} <= set(results["PerplexityResult"].body())
    tasks = results["TasksResult"].body()
    assert all({"score", "standard_error"} <= set(row) for row in tasks["tasks"].values()) and "mean" in tasks
    engine = results["EngineResult"].body()
    assert {"ranks", "collectives", "module", "version", "target", "key"} <= set(engine)


def changed(path: Path, result: Result, change: dict[str, Any]) -> Path:
    body = {**result.body(), "provenance": PROVENANCE, **change}
    files.write_json(path, {key: value for key, value in body.items() if value != "absent"})
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 7}, "has ttft 7, here ttft 2 is read"),
        ({"schema_name": "projection"}, "has projection 2, here ttft 2 is read"),
        ({"schema_name": "absent", "schema_version": "absent"}, "has no schema, here ttft 2 is read"),
        ({"headline": "absent"}, "is damaged (headline: Field required)"),
        ({"rows": [{"architecture": "standard"}]}, "is damaged (rows.0.kind: Field required, and"),
        ({"figures": []}, "is damaged (figures: Extra inputs are not permitted)"),
    ],
)
def test_result_schema_of_another_kind_or_version_is_refused_with_one_line(
    results: dict[str, Result], tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    path = changed(tmp_path / "ttft-x.json", results["TtftResult"], change)
    with pytest.raises(ResultError) as caught:
        read(path, TtftResult)
    text = str(caught.value)
    assert caught.value.exit_code == 2
    assert text.startswith(f"{path} {says}") and "\n" not in text
    assert text.endswith("make it again with python -m stages.benchmark_ttft benchmark=NAME")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_name": "ttft"', "\xff"])
def test_result_schema_damaged_files_are_refused_with_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ttft-x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultError, match=r"is damaged .*make it again with"):
        read(path, TtftResult)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.json", TtftResult)


def test_result_schema_refuses_nan_and_leaves_the_old_file(results: dict[str, Result], tmp_path: Path) -> None:
    result = results["TtftResult"]
    assert isinstance(result, TtftResult)
    row = result.rows[0]
    with pytest.raises(ValidationError, match="finite"):
        type(row)(**{**row.model_dump(), "ttft_ms_median": float("nan")})
    path = tmp_path / "r.json"
    write(path, result, PROVENANCE)
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        write(path, result, {"seconds": float("inf")})
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_result_schema_numbers_of_a_series_stand_on_one_line(results: dict[str, Result], tmp_path: Path) -> None:
    result = results["TtftResult"]
    write(tmp_path / "r.json", result, PROVENANCE)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == {**result.body(), "provenance": PROVENANCE}
    assert len(text.splitlines()) < 120 * len(result.body()["rows"])  # a line a field, samples on one


def test_result_schema_every_row_is_of_a_known_kind(results: dict[str, Result]) -> None:
    def kinds(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["kind"]] if "kind" in part else []
            return own + [kind for value in part.values() for kind in kinds(value)]
        return [kind for value in part for kind in kinds(value)] if isinstance(part, list) else []

    for name, result in results.items():
        found = kinds(result.body())
        assert found and set(found) <= set(KINDS), name


def test_result_schema_of_an_old_engine_is_built_again(results: dict[str, Result], tmp_path: Path) -> None:
    changed(tmp_path / "engine.json", results["EngineResult"], {"schema_version": 0})
    assert not engine_folder.is_current(tmp_path, results["EngineResult"].body()["key"])
