"""A plan as text for a terminal."""

from tabulate import tabulate

from pipeline.experiment.plan import ModelPlan, Plan
from pipeline.experiment.work import Experiment


def plan_text(experiment: Experiment, plan: Plan) -> str:
    """Models, devices, stages and faults; every estimate says that it is one."""
    config = experiment.config
    title = f"experiment {config.experiment.name}: {config.experiment.title}" if config.experiment else "one stage"
    trains = any(stage.name == "train" for stage in experiment.stages)
    lines = [
        title,
        f"scale {config.scale.name}: {config.scale.title}",
        "",
        tabulate(
            [_row(model, trains) for model in plan.models],
            headers=_headers(trains),
            disable_numparse=True,
            stralign="right",
        ),
        "",
    ]
    if trains and config.cluster.device == "cuda":
        hardware = config.hardware
        lines.append(
            f"GPU hours are projected: training FLOPs at {hardware.training_mfu:.0%} of {hardware.matmul_flops:.3g} "
            f"FLOP/s ({hardware.name}); the paper's A100 hours are quoted."
        )
    pieces = list(experiment.work())
    lines.append(f"stages     {', '.join(stage.name for stage in experiment.stages)} ({len(pieces)} pieces of work)")
    done = [work.name for work in pieces if not work.stage.always and work.is_done()]
    if done:
        lines.append(f"done       {', '.join(done)}")
    if plan.faults:
        lines += ["", "this machine lacks:", *[f"  - {fault}" for fault in plan.faults]]
    else:
        lines += ["", "nothing is missing: the same command without debug=dry_run runs it"]
    return "\n".join(lines)


def _headers(trains: bool) -> list[str]:
    if not trains:
        return ["model", "parameters"]
    return [
        "model",
        "parameters",
        "steps",
        "tokens",
        "devices",
        "GB per device (est.)",
        "GPU hours (proj.)",
        "A100 hours (paper)",
    ]


def _row(model: ModelPlan, trains: bool) -> list[str]:
    if not trains:
        return [model.name, f"{model.parameters:,}"]
    return [
        model.name,
        f"{model.parameters:,}",
        f"{model.steps:,}",
        f"{model.tokens:,}",
        str(model.devices),
        f"{model.memory_bytes_per_device / 1e9:.1f}",
        "-" if model.projected_hours is None else f"{model.projected_hours:,.0f}",
        "-" if model.published_hours is None else f"{model.published_hours:,.0f}",
    ]
