"""Settings for every test."""

import os

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a hub
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors on one thread: quicker than waking two, and alike on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collection_modifyitems(items):
    """GPU tests skip, with the reason, where there are not enough GPUs."""
    devices = torch.cuda.device_count()
    for item in items:
        needed = 2 if item.get_closest_marker("multigpu") else 1 if item.get_closest_marker("gpu") else 0
        if devices < needed:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed} CUDA GPU(s), {devices} here"))
