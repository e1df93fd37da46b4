"""Train one model with Ray Train; killed or interrupted, the same command goes on from the last checkpoint.

    python -m stages.train model=demo_kraken_4way
    python -m stages.train model=kraken_124m_4way scale=paper cluster.num_workers=8

Writes trained/<scale>/<model>/ and results/<scale>/<model>/training.json.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch

SERIES = ("loss_nats", "learning_rate", "gradient_norm", "tokens_per_s", "mfu")


def run(config: Config, log: StageRun) -> None:
    from pipeline import files, provenance
    from pipeline.training import run as runs
    from pipeline.training.loop import TrainingJob

    stage = BY_NAME["train"]
    fingerprint = stage.fingerprint(config)
    result, trained = stage.paths(stage.outputs, config)
    data_folder = stage.paths(stage.inputs, config)[0].resolve()
    identity = runs.identity(fingerprint, data_folder, BY_NAME["prepare_data"].fingerprint(config))
    job = TrainingJob(
        config.model,
        config.training,
        config.cluster,
        data_folder,
        Path(config.paths.runs, config.scale.name, f"{config.model.name}-{identity}").resolve(),
        identity,
    )
    for folder in (trained, result.parent):
        files.check_writable(folder.parent)
    data = runs.check_before(job)
    state = runs.run(job, lambda line: print(line, flush=True), lambda records: _log_records(log, records))
    runs.publish(job, state, trained, data)
    found = runs.result(job, state, data)
    provenance.write_result(result, found.body(), fingerprint, stage.input_marks(config))
    files.write_text(result.with_name("curve.csv"), _csv(found.body()["curve"]))
    log.log_metrics(
        {
            "parameters": found.parameters,
            "final_val_loss_nats": found.val_loss_nats,
            "tokens_per_s_median": found.tokens_per_s_median,
        },
        step=state.step,
    )
    log.log_artifact(result)
    print(
        f"{config.model.name}: validation loss {found.val_loss_nats:.4f} nats after {state.tokens:,} tokens "
        f"(unigram model {found.unigram_loss_nats:.4f}), {found.tokens_per_s_median:,.0f} tokens/s; {trained}"
    )


def _csv(curve: list[dict[str, float]]) -> str:
    """The training curve as `dvc plots` reads it: one line a log step."""
    return "\n".join([",".join(curve[0]), *(",".join(str(value) for value in row.values()) for row in curve), ""])


def _log_records(log: StageRun, records: list[dict[str, object]]) -> None:
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
    raise SystemExit(launch(run, __doc__ or ""))
