"""Project Time To First Token for hardware that is not at hand, beside the paper's times.

    python -m stages.project_ttft benchmark=ttft_paper
    python -m stages.project_ttft benchmark=ttft_paper hardware=h100_sxm
    python -m stages.project_ttft benchmark=ttft_paper hardware.link_bandwidth=3.2e10

On the paper's machine a few efficiencies are fitted to some of its published times; the rest is predicted.
"""

from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch

if TYPE_CHECKING:
    from pipeline.projection.calibration import Calibration
    from pipeline.projection.hardware import Hardware
    from pipeline.results import ProjectionResult


def run(config: Config, log: StageRun) -> None:
    from pipeline import provenance
    from pipeline.compose import model_config
    from pipeline.projection.grid import project
    from pipeline.projection.table import text

    stage = BY_NAME["project_ttft"]
    hardware, calibration, is_published_machine = calibrated(config)
    published = config.reference if is_published_machine else None
    found = project(config.benchmark, hardware, model_config, published, calibration, config.hardware.source)
    path = stage.result(config)
    provenance.write_result(path, found.body(), stage.fingerprint(config))
    log.log_metrics(_metrics(found))
    log.log_artifact(path)
    print(text(found))
    print(f"written  {path}")


def calibrated(config: Config) -> "tuple[Hardware, Calibration | None, bool]":
    """The device with fitted values where it is the paper's, the fit, and whether nothing of it was changed.

    Values changed on the command line stay as they were given; published times then say nothing about them.
    """
    from pipeline.compose import compose, model_config
    from pipeline.projection.calibration import calibrate
    from pipeline.projection.hardware import FITTED, Hardware

    hardware, reference = Hardware.from_config(config.hardware), config.reference
    if config.hardware.name != reference.ttft_hardware:
        return hardware, None, False
    paper = compose([f"benchmark={reference.ttft_benchmark}", f"hardware={reference.ttft_hardware}"])
    original = Hardware.from_config(paper.hardware)
    fit = calibrate(original, reference, paper.benchmark, model_config)
    if fit is None:
        return hardware, None, False
    kept = {name: fit.values[name] for name in FITTED if getattr(hardware, name) == getattr(original, name)}
    same = hardware == original and config.benchmark.dtype == paper.benchmark.dtype
    return hardware.with_values(kept), fit, same


def _metrics(found: "ProjectionResult") -> dict[str, float]:
    speedups = {f"{one.architecture}_geomean_speedup": one for one in found.headline.all if one.kind == "projected"}
    return {
        **{name: one.geomean_speedup for name, one in speedups.items()},
        **{f"{group}_mean_absolute_error": one.mean_absolute_error for group, one in found.errors.items() if one},
    }


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
