"""Train every arm of a study from several seeds, at its sizes and token counts, with the recipes that were searched.

    python -m stages.compare_quality +experiment=same_tokens
    python -m pipeline +experiment=same_tokens scale=cpu sweep.n_seeds=5     two more seeds: only they are run

Killed or interrupted, the same command goes on: runs that have ended are never run again.
Writes results/<scale>/<study>/quality.json. docs/same_tokens.md is the protocol.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun


def check(work: "list[Work]") -> list[str]:
    from pipeline.study import check

    return [fault for one in work for fault in check.faults(one.composed)]


def plan(work: "list[Work]") -> str:
    from pipeline.study import check

    return "\n".join(check.quality_plan(one.composed) for one in work)


def finish() -> None:
    """Ray's processes must not share the cores with what is timed next."""
    from pipeline.training import ray_launcher

    ray_launcher.shutdown()


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.data import TokenData
    from pipeline.results import read
    from pipeline.results.search import SearchResult
    from pipeline.study.arms import models
    from pipeline.study.compare import Comparison
    from pipeline.study.progress import Progress
    from pipeline.study.run import lookup, maker_of, runner
    from pipeline.study.text import quality_table

    config = work.config
    assert config.study is not None
    files.check_writable(work.result.parent, hint="paths.results")
    maker = maker_of(work)
    comparison = Comparison(
        config.study,
        config.sweep,
        models(config.study, config.sweep, lookup),
        read(work.path("search"), SearchResult),
        maker,
        config.training.seed,
    )
    trials = comparison.trials()
    do = runner(config, maker, Progress(_say, trials), log)
    outcomes = do(trials, False)
    data = TokenData.open(work.path("data"), verify=False)
    result = comparison.result(outcomes, data, config.scale.name)
    log.log_artifact(work.write(result))
    log.log_metrics(
        {
            f"{cell.arm}_{cell.size}_{cell.tokens}_loss_nats": cell.loss_nats.value
            for cell in result.cells
            if cell.loss_nats is not None
        }
    )
    print(quality_table(result))
    print(f"wrote {work.result}")


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
