"""Project Time To First Token for hardware that is not at hand, beside the paper's times.

    python -m stages.project_ttft benchmark=ttft_paper
    python -m stages.project_ttft benchmark=ttft_paper hardware=h100_sxm
    python -m stages.project_ttft benchmark=ttft_paper hardware.link_bandwidth=3.2e10

On the paper's machine a few efficiencies are fitted to some of its published times; the rest is predicted.
"""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.config.benchmark import BenchmarkConfig
    from pipeline.config.hardware import HardwareConfig
    from pipeline.experiment.work import Work
    from pipeline.projection.calibration import Calibration
    from pipeline.projection.hardware import Hardware
    from pipeline.results import ProjectionResult
    from pipeline.tracking import StageRun


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.compose import model_config
    from pipeline.projection.grid import project
    from pipeline.projection.text import text

    config = work.config
    hardware, calibration, is_published_machine = calibrated(config)
    published = config.reference if is_published_machine else None
    found = project(config.benchmark, hardware, model_config, published, calibration, config.hardware.source)
    path = work.write(found)
    log.log_metrics(_metrics(found))
    log.log_artifact(path)
    print(text(found))
    print(f"written  {path}")


def calibrated(config: "Config") -> "tuple[Hardware, Calibration | None, bool]":
    """The device with fitted values where it is the paper's, the fit, and whether nothing of it was changed.

    Values changed on the command line stay as they were given; published times then say nothing about them.
    """
    from pipeline.compose import model_config, shipped
    from pipeline.projection.calibration import calibrate
    from pipeline.projection.hardware import FITTED, Hardware

    hardware, reference = Hardware.from_config(config.hardware), config.reference
    if config.hardware.name != reference.ttft_hardware:
        return hardware, None, False
    benchmark = cast("BenchmarkConfig", shipped("benchmark", reference.ttft_benchmark))
    original = Hardware.from_config(cast("HardwareConfig", shipped("hardware", reference.ttft_hardware)))
    fit = calibrate(original, reference, benchmark, model_config)
    if fit is None:
        return hardware, None, False
    kept = {name: fit.values[name] for name in FITTED if getattr(hardware, name) == getattr(original, name)}
    same = hardware == original and config.benchmark.dtype == benchmark.dtype
    return hardware.with_values(kept), fit, same


def _metrics(found: "ProjectionResult") -> dict[str, float]:
    speedups = {one.metric: one for one in found.headline.all if one.kind == "projected"}
    return {
        **{name: one.geomean_speedup for name, one in speedups.items()},
        **{f"{group}_mean_absolute_error": one.mean_absolute_error for group, one in found.errors.items() if one},
    }


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
