"""Search, for every arm of a study, the peak rate and the initial scale at which it learns most (Ray Tune, ASHA).

    python -m stages.search_recipes +experiment=same_tokens
    python -m stages.search_recipes +experiment=same_tokens scale=cpu 'sweep.learning_rates=[1e-3,4e-3]'

Killed or interrupted, the same command goes on: trials that have ended are never run again.
Writes results/<scale>/<study>/search.json. docs/same_tokens.md is the protocol.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.study.search import Search
    from pipeline.tracking import StageRun


def check(work: "list[Work]") -> list[str]:
    from pipeline.study import check

    return [fault for one in work for fault in check.faults(one.composed)]


def notes(work: "list[Work]") -> list[str]:
    from pipeline.study import check

    return [note for one in work for note in check.notes(one.composed)]


def plan(work: "list[Work]") -> str:
    from pipeline.study import check

    return "\n".join(check.search_plan(one.composed) for one in work)


def finish() -> None:
    """Ray's processes must not share the cores with what is timed next."""
    from pipeline.training import ray_launcher

    ray_launcher.shutdown()


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.study.progress import Progress
    from pipeline.study.run import runner
    from pipeline.study.search import search_result

    files.check_writable(work.result.parent.parent, hint="paths.results")
    search = _search(work)
    config = work.config
    found, recipes = search.all(runner(config, search.maker, Progress(_say, search.known()), log))
    assert config.study is not None
    result = search_result(search, found, recipes, config.study.name, config.scale.name, config.training.seed)
    log.log_artifact(work.write(result))
    log.log_metrics({f"{one.arm}_{one.size}_learning_rate": one.learning_rate for one in recipes})
    for one in recipes:
        edge = " (a rate next to it was not tried)" if one.at_edge else ""
        print(
            f"{one.size} {one.arm}: rate {one.learning_rate:g}{edge}, initial scale {one.init_std:g}: "
            f"{one.loss_nats:.4f} nats"
        )
    cost = result.cost
    print(
        f"{cost.trials} trials ({cost.stopped} stopped, {cost.diverged} diverged), {cost.tokens:,} tokens, "
        f"{cost.flops:.3g} FLOPs, {cost.seconds / 60:.1f} minutes of trials; {work.result}"
    )


def _search(work: "Work") -> "Search":
    from pipeline.study.arms import models
    from pipeline.study.run import lookup, maker_of
    from pipeline.study.search import Search

    config = work.config
    assert config.study is not None
    found, maker = models(config.study, config.sweep, lookup), maker_of(work)
    maker.check(config.study, found)  # of the runs that follow too: a search is long
    return Search(config.sweep, config.study.arms, found, maker)


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
