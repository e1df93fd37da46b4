"""TensorRT's Python module by its configured name: `tensorrt` on GPU hosts, `tensorrt_rtx` where nothing else builds.

The only file that imports either. Everything else is handed the module as `trt`.
"""

import importlib
from typing import Any

from pipeline.errors import ConfigError, MissingRequirementError

EXTRA = {
    "tensorrt_rtx": "pip install -c constraints.txt -e '.[tensorrt]' (Linux or Windows on x86-64)",
    "tensorrt": "pip install 'tensorrt>=11' on a host with an NVIDIA driver, or engine.module=tensorrt_rtx, "
    "which builds without a GPU",
}
COLLECTIVES = "add_dist_collective"


def load(module: str) -> Any:
    """Import `module`; raises MissingRequirementError where it is missing or too old for collectives."""
    try:
        trt = importlib.import_module(module)
    except ImportError as error:
        raise MissingRequirementError(f"engine.module={module} cannot be imported ({error}): {EXTRA[module]}") from None
    if not hasattr(trt.INetworkDefinition, COLLECTIVES):
        raise MissingRequirementError(
            f"engine.module={module} is version {trt.__version__}, which has no native collectives: "
            "tensorrt 11 (10.16 as a preview) or tensorrt_rtx 1.7 has them"
        )
    return trt


def target_of(trt: Any, target: str) -> str:
    """The GPU that engines are built for: `target` where TensorRT builds ahead of time, else the one that is here.

    Raises ConfigError where this TensorRT cannot build for it, MissingRequirementError where no GPU is here.
    """
    if hasattr(trt, "ComputeCapability"):
        check_target(trt, target)
        return target.lower()
    import torch

    if not torch.cuda.is_available():
        raise MissingRequirementError(
            f"engine.module={trt.__name__} builds for the GPU it sees, and none is here: {EXTRA['tensorrt']}"
        )
    major, minor = torch.cuda.get_device_capability()
    here = f"sm{major}{minor}"
    _check_collectives(here)
    return here


def check_target(trt: Any, target: str) -> None:
    """Raises ConfigError where this TensorRT cannot build for the GPU `target`, as sm80."""
    known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if target.lower() not in known:
        raise ConfigError(
            f"engine.target={target}: {trt.__name__} {trt.__version__} builds for {', '.join(known)}; "
            "for other GPUs use engine.module=tensorrt on a host that has one"
        )
    _check_collectives(target)


def _check_collectives(target: str) -> None:
    if int(target[2:]) < 80:
        raise ConfigError(f"engine.target={target}: native collectives need sm80 or later")


def make_logger(trt: Any) -> Any:
    """A logger that keeps what went wrong instead of printing it."""

    class Collecting(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return Collecting()


def make_builder(trt: Any, logger: Any) -> Any:
    """A builder; raises MissingRequirementError where TensorRT cannot start, as `tensorrt` without a driver."""
    try:
        builder = trt.Builder(logger)
    except Exception as error:  # pybind raises TypeError or RuntimeError, by version
        raise MissingRequirementError(_cannot_start(trt, [str(error), *logger.errors])) from None
    if builder is None:
        raise MissingRequirementError(_cannot_start(trt, logger.errors))
    return builder


def _cannot_start(trt: Any, reasons: list[str]) -> str:
    return (
        f"{trt.__name__} {trt.__version__} cannot start here: {'; '.join(reasons)[:300]}. "
        "A host with an NVIDIA driver would do, or engine.module=tensorrt_rtx"
    )
