"""Train one model with Ray Train; killed or interrupted, the same command goes on from the last checkpoint.

    python -m stages.train model=demo_kraken_4way
    python -m stages.train model=kraken_124m_4way scale=paper cluster.num_workers=8
    python -m stages.train training.schedule=wsd training.steps=2000      # extends a shorter run of that schedule
    python -m stages.train training.branch_from=runs/demo/RUN training.learning_rate=1e-3

Extending and branching: docs/training_runs.md.
Writes trained/<scale>/<model>/ and results/<scale>/<model>/training.json.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun

SERIES = ("loss_nats", "learning_rate", "gradient_norm", "tokens_per_s", "mfu")


def check(work: "list[Work]") -> list[str]:
    from pipeline.training import plan
    from pipeline.training.branch import Branch

    for config in (one.composed for one in work):
        if branch := Branch.of(config.training):
            branch.check(config.model, config.training)
    return plan.faults([one.composed for one in work])


def plan(work: "list[Work]") -> str:
    from pipeline.training import plan

    return plan.text([one.composed for one in work])


def notes(work: "list[Work]") -> list[str]:
    from pipeline.training import plan

    return plan.notes([one.composed for one in work])


def finish() -> None:
    """Training is over: Ray's processes must not share the cores with what is timed next."""
    from pipeline.training import ray_launcher

    ray_launcher.shutdown()


def run(work: "Work", log: "StageRun") -> None:
    from pipeline import files
    from pipeline.models.placement import check_trainable
    from pipeline.training import lineage, origin
    from pipeline.training import run as runs
    from pipeline.training.branch import Branch
    from pipeline.training.job import TrainingJob

    config, trained = work.config, work.path("trained")
    check_trainable(config.model)
    data_folder = work.path("data").resolve()
    code = work.code_of("pipeline.training.loop")
    branch, training = Branch.of(config.training), config.training
    if branch:  # a run that goes on has a newer checkpoint soon: this one it is
        training = training.model_copy(update={"branch_from": str(branch.folder)})
    identity = runs.identity(work.settings, data_folder, code, branch)
    job = TrainingJob(
        config.model,
        training,
        config.cluster,
        data_folder,
        Path(config.paths.runs, config.scale.name, f"{config.model.name}-{identity}").resolve(),
        identity,
        work.device_flops(),
    )
    files.check_replaceable(trained)
    for folder in (trained, work.result.parent):
        files.check_writable(folder.parent)
    data = runs.check_before(job, _say)
    state = runs.run(job, _say, lambda records: _log_records(log, records))
    commits = origin.read(job.run_folder)
    begun = lineage.read(job.run_folder)
    made_by = {  # those that took the steps, whoever publishes them
        "commit": commits[-1]["commit"],
        "commits": commits,
        "adopted": begun["adopted"],
        "branched": begun["branched"],
    }
    runs.publish(job, state, trained, data, work.provenance(**made_by))
    found = runs.result(job, state, data, config.scale.name)
    files.write_text(work.path("curve"), _csv(found.body()["curve"]))
    log.log_artifact(work.write(found, **made_by))
    log.log_metrics(
        {
            "parameters": found.parameters,
            "final_val_loss_nats": found.val_loss_nats,
            "tokens_per_s_median": found.tokens_per_s_median,
        },
        step=state.step,
    )
    print(
        f"{config.model.name}: validation loss {found.val_loss_nats:.4f} nats after {state.tokens:,} tokens "
        f"(unigram model {found.unigram_loss_nats:.4f}), {found.tokens_per_s_median:,.0f} tokens/s; {trained}"
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _csv(curve: list[dict[str, float]]) -> str:
    """The training curve as `dvc plots` reads it: one line a log step."""
    return "\n".join([",".join(curve[0]), *(",".join(str(value) for value in row.values()) for row in curve), ""])


def _log_records(log: "StageRun", records: list[dict[str, object]]) -> None:
    """Forward log records to the tracker, one call a batch."""
    rows: list[tuple[int, dict[str, float]]] = []
    for record in records:
        step = int(str(record["step"]))
        if record["kind"] == "train":
            rows.append((step, {key: float(str(record[key])) for key in SERIES if record[key] is not None}))
        elif record["kind"] == "validation":
            rows.append((step, {"val_loss_nats": float(str(record["loss_nats"]))}))
    if rows:
        log.log_series(rows)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
