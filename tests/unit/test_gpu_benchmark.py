"""The command for a GPU machine, rehearsed at tiny shapes: its exit codes, a part killed, what may be missing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks.gpu import __main__, run_part
from benchmarks.gpu.place import ROOT

BLOCKED = ("ray", "hydra", "omegaconf", "mlflow", "datasets", "lm_eval", "tensorrt", "transformers", "pyarrow", "scipy")
BLOCKER = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {names} else find(name, path, target)
machinery.PathFinder.find_spec = classmethod(find_spec)
"""
HANGING = """
import sys, time
def hang(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoints/step-000000010"):
        time.sleep(600)
sys.addaudithook(hang)  # the second checkpoint never ends
"""


@pytest.fixture
def without(tmp_path):
    """An environment whose Python does not find the packages of these names, and runs `more` when it starts."""

    def made(*names: str, more: str = "") -> dict[str, str]:
        folder = tmp_path / "blocked"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(BLOCKER.format(names=set(names)) + more)
        return os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}

    return made


@pytest.fixture
def gpu_command(monkeypatch):
    """The command in this process: its exit code."""

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["gpu", *map(str, arguments)])
        return __main__.main()

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_ends_with_2_and_one_line(gpu_command, capsys):
    assert gpu_command() == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: no CUDA GPU here") and len(told.err.splitlines()) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_names_what_is_missing_in_one_line_with_its_command(without):
    # a make that calls this test (make test) must not make this one speak of folders
    env = {key: value for key, value in without("pydantic", "tqdm").items() if not key.startswith("MAKE")}
    ended = subprocess.run(["make", "gpu"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and ended.stdout == ""
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("make")]
    assert (
        line.startswith("error: missing here: pydantic>=2.14, tqdm; ")
        and "-m pip install 'pydantic>=2.14' 'tqdm'" in line
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cpu"], "--tiny is a rehearsal"),
        (["--device", "cpu", "--tiny"], "--out must name a folder"),
        (["--device", "cpu", "--tiny", "--out", ROOT / "results" / "reference" / "mine"], "outside results/reference"),
    ],
)
def test_a_rehearsal_never_counts_as_measured(arguments, said, gpu_command, capsys):
    assert gpu_command(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("--list",)])
def test_a_folder_that_cannot_be_written_to_is_named_in_one_line(more, gpu_command, capsys):
    assert gpu_command("--device", "cpu", "--tiny", "--out", "/dev/null/x", *more) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1
    assert told.err.startswith("error: cannot write to /dev/null/x: ") and "--out=" in told.err


@pytest.mark.parametrize(
    ("code", "minutes", "said", "ended"),
    [
        (0, 9, "", 0),
        (run_part.SKIPPED, 9, "", 0),
        (1, 9, "failed with exit code 1", 1),
        (None, 9, "out of time", 1),
        (0, 0, "left out", 1),
    ],
)
def test_the_exit_code_tells_whether_a_part_has_no_answer(
    code, minutes, said, ended, gpu_command, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(__main__, "_run_one", lambda *given: code)
    given = ("--device", "cpu", "--tiny", "--out", tmp_path, "--minutes", minutes)
    assert gpu_command(*given, "--part", "overlap", "--part", "tests") == ended
    lines = capsys.readouterr().out.splitlines()
    for name in ("overlap", "tests"):  # the one that fails keeps no other from running
        assert not said or any(line.startswith(f"{name}: {said}") for line in lines)


@pytest.mark.slow
def test_a_killed_part_goes_on_without_ray_hydra_or_mlflow(tmp_path, without, gpu_command, monkeypatch, capfd):
    out = tmp_path / "out"
    given = ("--device", "cpu", "--tiny", "--part", "train_kraken", "--out", out)
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, given)]
    env = without(*BLOCKED, more=HANGING) | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen(command, cwd=ROOT, env=env, **pipes)
    deadline = time.monotonic() + 120
    while not list(out.glob("unfinished/train_kraken-*/run/checkpoints/step-*5")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    _, errors = first.communicate(timeout=60)  # it ends when the part, which holds the other ends, has ended too
    assert errors == "" and not list(out.glob("*.json"))
    for name, value in (without(*BLOCKED) | {"OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    assert gpu_command(*given) == 0
    body = json.loads((out / "train_kraken.json").read_text())
    assert [point["step"] for point in body["curve"]] == [5, 10, 15, 20]
    assert body["rehearsal"] and "was interrupted and went on from a checkpoint" in body["notes"]
    assert {"commit", "versions", "device"} <= body["provenance"].keys()
    assert "ray" not in capfd.readouterr().err and not list(out.glob("unfinished/train_kraken-*"))
    before = (out / "train_kraken.json").stat().st_mtime_ns
    assert gpu_command(*given) == 0
    assert "train_kraken: there already" in capfd.readouterr().out
    assert (out / "train_kraken.json").stat().st_mtime_ns == before
