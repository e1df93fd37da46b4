"""The GPU an engine is built for: the one asked for where TensorRT builds ahead of time, else the one here."""

from types import SimpleNamespace

import pytest
import torch

from pipeline.errors import ConfigError, MissingRequirementError
from pipeline.export.tensorrt import module

AHEAD = SimpleNamespace(
    __name__="tensorrt_rtx", __version__="1.7", ComputeCapability=SimpleNamespace(__members__={"SM75": 0, "SM80": 1})
)
ON_SITE = SimpleNamespace(__name__="tensorrt", __version__="11.0")


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that a GPU of a compute capability is here."""

    def of(*capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return of


def test_ahead_of_time_it_is_the_target_asked_for(gpu):
    gpu(9, 0)
    assert module.target_of(AHEAD, "SM80") == "sm80"
    with pytest.raises(ConfigError, match="builds for sm75, sm80"):
        module.target_of(AHEAD, "sm90")
    with pytest.raises(ConfigError, match="need sm80 or later"):
        module.target_of(AHEAD, "sm75")


def test_on_site_it_is_the_gpu_that_is_here(gpu):
    gpu(9, 0)
    assert module.target_of(ON_SITE, "sm80") == "sm90"
    gpu(7, 5)
    with pytest.raises(ConfigError, match="sm75: native collectives need sm80"):
        module.target_of(ON_SITE, "sm80")


def test_on_site_without_a_gpu_says_what_would_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingRequirementError, match=r"none is here.*engine\.module=tensorrt_rtx"):
        module.target_of(ON_SITE, "sm80")
