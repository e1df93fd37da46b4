"""Result files missing, damaged, misplaced or of another scale: the report says so in a line and leaves them out."""

import pytest

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.report import summary
from pipeline.report.build import write_report
from pipeline.results import write
from tests.unit import result_files
from tests.unit.report_inputs import PAPERS, put, read
from tests.unit.result_files import settings


def test_missing_inputs_name_their_commands(tmp_path):
    put(tmp_path, "demo_standard/perplexity.json", result_files.perplexity(tmp_path, "demo_standard"))
    body = write_report(settings(tmp_path), "f")
    commands = {item["what"]: item["command"] for item in body["missing"]}
    assert set(commands) == {"training", "SuperGLUE", "engines", "measured TTFT", "projected TTFT"}
    assert commands["projected TTFT"] == "python -m stages.project_ttft benchmark=ttft_paper scale=demo"
    assert set(body["tables"]) == {"models", "perplexity"}
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(command in page for command in commands.values())


def test_nothing_at_all_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="nothing to report") as caught:
        write_report(settings(tmp_path), "f")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("demo_parallel/training.json", "{", "damaged"),
        ("demo_parallel/training.json", '{"schema_name": "training", "schema_version": 99}', "training 99"),
        ("demo_parallel/training.json", '{"schema_name": "training", "schema_version": 3}', "damaged"),
        ("demo_parallel/odd.json", '{"tasks": {}}', "no schema"),
        ("ttft-ttft_demo.json", '{"rows": []}', "no schema"),
        ("odd.json", "{}", "no kind of result"),
    ],
)
def test_a_file_that_is_no_result_is_one_line_and_left_out(tmp_path, name, text, says):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    files.write_text(tmp_path / "results" / "demo" / name, text)
    body = write_report(settings(tmp_path), "f")
    (fault,) = body["faults"]
    assert name in fault and says in fault and "\n" not in fault
    assert [row["model"] for row in body["tables"]["training"]["rows"]] == ["demo_standard"]
    assert fault in summary(body)
    assert says in (tmp_path / "report" / "index.html").read_text()


def test_a_result_of_another_scale_is_left_out(tmp_path):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    put(tmp_path, "ttft-ttft_demo.json", result_files.ttft(tmp_path, scale="paper", links=("loopback",)))
    inputs = read(tmp_path)
    assert not inputs.ttft and "is of scale paper, not demo" in inputs.faults[0]


def test_engines_and_training_of_another_scale_are_left_out(tmp_path):
    result_files.write_all(tmp_path, "demo")
    (tmp_path / "results" / "demo").rename(tmp_path / "results" / "small_gpu")
    timed = result_files.ttft(tmp_path, scale="small_gpu", links=("loopback",))
    write(tmp_path / "results/small_gpu/ttft-ttft_demo.json", timed, result_files.PROVENANCE)
    inputs = read(tmp_path, "small_gpu")
    assert not inputs.engines and not inputs.training and list(inputs.ttft) == ["ttft_demo"]
    assert any("training.json is of scale demo, not small_gpu" in fault for fault in inputs.faults)
    assert not any("engine.json" in fault for fault in inputs.faults)


def test_a_result_in_the_place_of_another_is_left_out(tmp_path):
    scored = result_files.superglue(tmp_path, "demo_standard")
    timed = result_files.ttft(tmp_path, links=("loopback",))
    put(tmp_path, "demo_standard/superglue_3shot.json", scored)
    put(tmp_path, "demo_parallel/superglue_3shot.json", scored)
    put(tmp_path, "demo_standard/superglue_0shot.json", scored)
    put(tmp_path, "demo_parallel/training.json", result_files.training(tmp_path, "demo_standard"))
    put(tmp_path, "ttft-ttft_cpu.json", timed)
    put(tmp_path, "ttft-ttft_demo-sweep.json", timed)
    put(tmp_path, "projection-h100_sxm-ttft_paper.json", result_files.projection(tmp_path))
    overridden = result_files.PROVENANCE | {"file": "demo/ttft-ttft_demo~0a1b2c.json"}
    write(tmp_path / "results/demo/ttft-ttft_demo.json", timed, overridden)  # renamed by hand
    write(tmp_path / "results/demo/ttft-ttft_demo~0a1b2c.json", timed, overridden)
    inputs = read(tmp_path)
    assert set(inputs.ttft) == {"ttft_demo-sweep", "ttft_demo~0a1b2c"} and not inputs.projections
    assert {name: list(scored) for name, scored in inputs.tasks.items()} == {"superglue_3shot": ["demo_standard"]}
    text = "\n".join(inputs.faults)
    assert len(inputs.faults) == 6 and not inputs.training
    for says in (
        "demo_parallel/superglue_3shot.json is of model demo_standard",
        "superglue_0shot.json is of evaluation superglue_3shot",
        "ttft-ttft_cpu.json is of benchmark ttft_demo",
        "is of hardware a100_40gb_nvswitch and benchmark ttft_paper",
        "ttft-ttft_demo.json was written as demo/ttft-ttft_demo~0a1b2c.json",
    ):
        assert says in text


def test_a_projected_row_among_measured_ones_is_a_fault(tmp_path):
    put(tmp_path, "demo_standard/training.json", result_files.training(tmp_path, "demo_standard"))
    timed = result_files.ttft(tmp_path, links=("loopback",))
    projected = timed.rows[0].model_copy(update={"kind": "projected"})
    put(tmp_path, "ttft-ttft_demo.json", timed.model_copy(update={"rows": [projected, *timed.rows[1:]]}))
    inputs = read(tmp_path)
    assert not inputs.ttft and "has a row of kind projected" in inputs.faults[0]


def test_a_row_of_an_unknown_kind_is_a_fault(tmp_path):
    put(tmp_path, "ttft-ttft_demo.json", result_files.ttft(tmp_path, links=("loopback",)))
    path = tmp_path / "results" / "demo" / "ttft-ttft_demo.json"
    body = files.read_json(path)
    body["rows"][0]["kind"] = "guessed"
    files.write_json(path, body)
    put(tmp_path, PAPERS, result_files.projection(tmp_path))
    inputs = read(tmp_path)
    assert not inputs.ttft and len(inputs.projections) == 1
    assert [("kind" in fault, str(path) in fault) for fault in inputs.faults] == [(True, True)]
