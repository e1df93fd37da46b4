"""Loss against Time To First Token of a study's arms: is a faster, worse model better than a smaller standard one?

    python -m stages.weigh_speed +experiment=same_tokens
    python -m stages.weigh_speed +experiment=same_tokens hardware=h100_sxm
    python -m stages.weigh_speed +experiment=same_tokens link=rate 'link.links=[300mbit]'    (Linux, root)
    python -m stages.weigh_speed +experiment=same_tokens scale=paper debug=dry_run

Losses are those of `python -m stages.compare_quality`; times are measured here over real ranks and projected for
`hardware`. docs/same_tokens.md is the protocol.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.experiment.work import Work
    from pipeline.results.quality import QualityResult
    from pipeline.results.trade import TradeResult
    from pipeline.study.times import Timing
    from pipeline.tracking import StageRun

HEAD = ("times", "arm", "size", "loss", "TTFT ms", "speedup", "standard of this TTFT", "gain nats")


def check(work: "list[Work]") -> list[str]:
    from pipeline.errors import MissingRequirementError

    config = work[0].config
    try:
        _timing(config).check(config.link, config.cluster)
    except MissingRequirementError as error:
        return [str(error)]
    return []


def plan(work: "list[Work]") -> str:
    from pipeline.benchmark.dry_run import dry_run

    config = work[0].config
    timing = _timing(config)
    return dry_run(timing.benchmark, config.link, config.cluster.device, timing.grid)


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.projection.hardware import Hardware
    from pipeline.study import trade
    from stages.project_ttft import calibrated

    config, timing = work.config, _timing(work.config)
    files.check_writable(work.result.parent, hint="paths.results")
    timing.check(config.link, config.cluster)
    quality = _quality(work)
    measured = timing.measure(config.link, config.cluster, Hardware.from_config(config.hardware), _say)
    hardware, _, _ = calibrated(config)
    found = trade.result(quality, [measured, timing.project(hardware)])
    path = work.write(found)
    log.log_metrics(_metrics(found))
    log.log_artifact(path)
    print(f"\n{_table(found)}\n\n{found.verdict}\nwritten  {path}")


def _timing(config: "Config") -> "Timing":
    from pipeline.compose import model_config
    from pipeline.study import arms, times

    assert config.study is not None  # or no settings would have been found
    models = arms.models(config.study, config.sweep, model_config)
    return times.plan(models, config.study.baseline, config.benchmark, config.cluster)


def _quality(work: "Work") -> "QualityResult":
    from pipeline.errors import ResultError
    from pipeline.results.file import read
    from pipeline.results.quality import QualityResult

    path = work.path("quality")
    if not path.exists():
        raise ResultError(f"{path} is missing: run python -m stages.compare_quality with the same overrides first")
    return read(path, QualityResult)


def _metrics(found: "TradeResult") -> dict[str, float]:
    """Gains by kind of time, arm and size, and the measured times."""
    gains = {
        f"{row.kind.split()[0]}_{row.arm}_{row.size}_gain_nats": row.gain_nats.value
        for row in found.rows
        if row.gain_nats is not None
    }
    times = {
        f"{row.arm}_{row.size}_ttft_ms": row.ttft_ms.value for row in found.rows if row.kind.startswith("measured")
    }
    return gains | times


def _table(found: "TradeResult") -> str:
    from tabulate import tabulate

    wheres = [f"{one.kind}: {one.where}, {one.context} tokens" for one in found.settings]
    rows = [
        (
            *(row.kind.split()[0], row.arm, row.size, row.loss_nats.text(), row.ttft_ms.text(2)),
            f"{row.speedup:+.1%}",
            "–" if row.standard_loss_nats is None else f"{row.standard_loss_nats:.3f}",
            "–" if row.gain_nats is None else row.gain_nats.text(3, "+"),
        )
        for row in found.rows
    ]
    return "\n".join([*wheres, tabulate(rows, headers=HEAD, disable_numparse=True)])


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
