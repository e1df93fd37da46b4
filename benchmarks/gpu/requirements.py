"""What this command needs of its Python; known before anything of it is imported."""

import sys
import warnings
from importlib import metadata, util

NEEDED = {
    "torch": "torch>=2.11",
    "numpy": "numpy",
    "pydantic": "pydantic>=2.14",
    "psutil": "psutil",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "tqdm": "tqdm",
}
LEAST_TORCH = (2, 11)
LEAST_PYTHON = (3, 11)


def fault() -> str | None:
    """One line that says what is missing and how to get it; None where all is here."""
    if sys.version_info < LEAST_PYTHON:
        return f"Python {sys.version.split()[0]}: 3.11 or later is needed; name one as make gpu PYTHON=…"
    missing = [need for name, need in NEEDED.items() if util.find_spec(name) is None]
    if missing:
        wanted = " ".join(f"'{need}'" for need in missing)
        return f"missing here: {', '.join(missing)}; {sys.executable} -m pip install {wanted}"
    version = metadata.version("torch")
    if tuple(int(part) for part in version.split(".")[:2]) < LEAST_TORCH:
        return f"torch {version}: 2.11 or later is needed; {sys.executable} -m pip install --upgrade 'torch>=2.11'"
    return None


def gpu_fault() -> str | None:
    """One line where torch sees no CUDA GPU."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is too old torch warns in many lines
        if torch.cuda.is_available():
            return None
    return f"no CUDA GPU here (torch {torch.__version__}); run this on a machine that has one: docs/gpu.md"
