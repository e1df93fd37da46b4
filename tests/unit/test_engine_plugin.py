"""The overlap plugin: its stream logic on simulated streams, and what nvcc compiles of it without TensorRT."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "pipeline" / "export" / "tensorrt_llm" / "overlap_plugin"


def test_stream_logic_holds_in_every_interleaving(tmp_path):
    compiler = shutil.which("g++") or pytest.skip("no g++")
    program = tmp_path / "overlap"
    source = Path(__file__).with_name("engine_overlap_test.cpp")
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Werror", f"-I{PLUGIN}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True, timeout=120)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 14


@pytest.mark.slow
def test_nvcc_compiles_the_stream_logic_on_cuda(tmp_path):
    compiler = shutil.which("nvcc") or pytest.skip("no nvcc")
    flags = ["-std=c++17", "-arch=sm_80", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"]
    done = subprocess.run(
        [compiler, *flags, "-c", str(PLUGIN / "overlap_core.cu"), "-o", str(tmp_path / "core.o")],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    names = subprocess.run(["nm", "-C", str(tmp_path / "core.o")], capture_output=True, text=True, check=True).stdout
    assert "kraken::StreamOverlap<kraken::CudaStreams>::start" in names


@pytest.mark.slow
def test_cmake_builds_the_core_and_says_what_it_leaves_out(tmp_path):
    if not (shutil.which("cmake") and shutil.which("nvcc")):
        pytest.skip("needs cmake and nvcc")
    configure = ["cmake", "-S", str(PLUGIN), "-B", str(tmp_path), "-DCMAKE_CUDA_ARCHITECTURES=80"]
    done = subprocess.run(configure, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    subprocess.run(["cmake", "--build", str(tmp_path)], check=True, capture_output=True, timeout=240)
    assert list(tmp_path.rglob("overlap_core.cu.o"))
    if not list(tmp_path.rglob("libkraken_overlap.so")):
        assert "the plugin itself is left out" in done.stdout
