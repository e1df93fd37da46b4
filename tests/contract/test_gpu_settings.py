"""The GPU command reads no conf/: what it has instead must be the same."""

from benchmarks.gpu import settings


def test_the_settings_of_the_gpu_command_are_those_of_conf():
    assert settings.read() == settings.compose(), "python -m benchmarks.gpu.settings composes them again"
