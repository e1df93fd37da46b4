"""One training run from the driver's side: its folder, its live log, and what it leaves behind."""

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import files, provenance
from pipeline.data import TokenData, TokenSampler
from pipeline.data.manifest import read as read_manifest
from pipeline.errors import CheckpointError, DataError, RunError
from pipeline.models import build_model, count
from pipeline.models.checkpoint import save_model
from pipeline.results.training import Adopted, Branched, CurvePoint, TextSample, TrainingResult, ValidationPoint
from pipeline.training import checkpoint, lineage, origin, ray_launcher
from pipeline.training.branch import Branch
from pipeline.training.job import TrainingJob
from pipeline.training.lock import run_lock
from pipeline.training.log import LogTail, Record, RunLog, text_line
from pipeline.training.optimizer import make_optimizer
from pipeline.training.state import TrainingState

TRACKED = "tracked.json"  # the last step that the tracker has
LOCK_WAIT_S = 20.0  # workers of a driver that was killed just now are still ending


def identity(settings: dict[str, Any], data_folder: Path, code: dict[str, str], branch: Branch | None = None) -> str:
    """What names a run: the settings and the very tokens, then the code that takes the steps.

    New data never resumes an old run, and changed code neither goes on from old steps nor publishes old weights. A
    branch counts by its content, wherever it lies. Raises DataError where the folder holds no tokens.
    """
    if branch:
        settings = {**settings, "training": {**settings["training"], "branch_from": branch.digest}}
    tokens = [shard["sha256"] for shard in read_manifest(data_folder)["shards"]]
    return f"{provenance.fingerprint(settings, tokens)}-{provenance.fingerprint(code)[:8]}"


def check_before(job: TrainingJob, say: Callable[[str], None] = lambda line: None) -> TokenData:
    """Everything that can be known to be wrong before any worker starts; opens and verifies the data.

    A damaged checkpoint that is passed over is said, and set aside.
    Raises DataError, MissingRequirementError, OutputError or CheckpointError.
    """
    ray_launcher.check_resources(job.cluster)
    data = TokenData.open(job.data_folder)
    entries = data.manifest["tokenizer"]["vocab_size"]
    if entries > job.model.vocab_size:
        raise DataError(
            f"model.vocab_size={job.model.vocab_size}: {job.data_folder} was tokenised with {entries} entries; "
            f"at least {entries} are needed"
        )
    TokenSampler(data.train, job.model.block_size, job.training.global_batch_size, job.training.seed)
    if data.val.tokens < 2:
        raise DataError(
            f"{job.data_folder}: the validation split has {data.val.tokens} tokens; raise data.val_fraction"
        )
    kept = checkpoint.checkpoints(job.run_folder)  # make room for new ones
    there = sum(path.stat().st_size for folder in kept for path in folder.iterdir())
    per_parameter = 12 * job.cluster.keep_checkpoints + 16  # checkpoints with moments, one being written, the model
    needed = per_parameter * count.parameters(job.model) - there
    files.check_writable(job.run_folder, max(0, needed), hint="paths.runs")
    with run_lock(job.run_folder, LOCK_WAIT_S):
        checkpoint.sweep(job.run_folder)
        branch = Branch.of(job.training)
        if checkpoint.checkpoints(job.run_folder):
            checkpoint.set_aside_damaged(
                job.run_folder, checkpoint.restore_latest(job.run_folder, _empty_state(job), say)
            )
        elif branch:
            branch.check(job.model, job.training)
    return data


def run(job: TrainingJob, show: Callable[[str], None], on_records: Callable[[list[Record]], None]) -> TrainingState:
    """Train `job` to its end (at once where it has ended) and return the finished state.

    `show` gets a line a record, `on_records` the records in batches while training goes on.
    """
    state = _finished(job)
    if state is not None:
        _Follower(job, show, on_records).catch_up()  # what a tracker has missed
    else:
        if not origin.last_step(job.run_folder):
            with run_lock(job.run_folder, LOCK_WAIT_S):
                lineage.begin(job, show)
        if not origin.last_step(job.run_folder):
            for folder, step in origin.unfinished_by_other_code(job.run_folder, job.training.steps):
                show(
                    f"{folder}: an unfinished run of other code, at step {step}, is left as it is; this one begins anew"
                )
        origin.note(job.run_folder, provenance.git_commit())
        follower = _Follower(job, show, on_records)
        try:
            ray_launcher.fit(job, follower.catch_up, show)
        finally:
            follower.catch_up()
        state = _finished(job)
    if state is None:
        raise CheckpointError(f"{job.run_folder}: training ended without its last checkpoint")
    return state


def publish(
    job: TrainingJob, state: TrainingState, folder: Path, data: TokenData, made_by: dict[str, Any] | None = None
) -> None:
    """The finished model: weights, config.json and tokenizer.json in `folder`; `made_by` is its provenance."""
    with files.atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        details = {
            "fingerprint": job.fingerprint,
            "steps": state.step,
            "tokens": state.tokens,
            "data": data.manifest["name"],
            "tokenizer_sha256": data.manifest["tokenizer"]["sha256"],
            "provenance": made_by or {},
        }
        save_model(temporary, state.model, details)
        shutil.copy(job.data_folder / data.manifest["tokenizer"]["file"], temporary / "tokenizer.json")


def result(job: TrainingJob, state: TrainingState, data: TokenData, scale: str) -> TrainingResult:
    """What training.json says; every number is measured, from the run's own log."""
    records = RunLog(job.run_folder).read()
    steps = [record for record in records if record["kind"] == "train"]
    if not steps:
        raise RunError(f"{job.run_folder}: every step was left out, as its log says; nothing was learned")
    begun = lineage.read(job.run_folder)
    return TrainingResult(
        kind="measured",
        model=job.model.name,
        architecture=job.model.architecture,
        scale=scale,
        parameters=count.parameters(job.model),
        shape=job.model.identity(),
        run_fingerprint=job.fingerprint,
        steps=state.step,
        skipped_steps=state.skipped,
        adopted=begun["adopted"] and Adopted(**begun["adopted"]),
        branched=begun["branched"] and Branched(**begun["branched"]),
        tokens=state.tokens,
        train_loss_nats=steps[-1]["loss_nats"],
        val_loss_nats=state.validation[-1]["loss_nats"],
        unigram_loss_nats=data.manifest["unigram_loss_nats"],
        tokens_per_s_median=statistics.median(record["tokens_per_s"] for record in steps),
        stepping_s=_stepping_s(job, steps, begun["branched"]["step"] if begun["branched"] else 0),
        wall_s=state.seconds,
        mfu=steps[-1]["mfu"],
        peak_flops=_peak_flops(job, steps[-1]),
        peak_memory_bytes=max(record["memory_bytes"] for record in steps),
        ranks=steps[-1]["ranks"],
        tp_size=steps[-1]["tp_size"],
        fsdp=steps[-1]["fsdp"],
        device_kind=job.cluster.device,
        curve=[CurvePoint(**{key: record[key] for key in CurvePoint.model_fields}) for record in steps],
        validation=[ValidationPoint(**point) for point in state.validation],
        samples=[
            TextSample(step=record["step"], text=record["text"]) for record in records if record["kind"] == "sample"
        ],
    )


def _peak_flops(job: TrainingJob, record: Record) -> float | None:
    """What a record's MFU is a share of."""
    flops = record["tokens_per_s"] * count.training_flops_per_token(job.model)
    return flops / record["mfu"] if record["mfu"] else None


def _stepping_s(job: TrainingJob, records: list[Record], first: int = 0) -> float:
    """Seconds spent in optimizer steps from `first` on; each record's rate covers the steps since the one before."""
    tokens = job.training.global_batch_size * job.model.block_size
    starts = [first, *(record["step"] for record in records[:-1])]
    pairs = zip(records, starts, strict=True)
    return float(sum((record["step"] - start) * tokens / record["tokens_per_s"] for record, start in pairs))


def _empty_state(job: TrainingJob) -> TrainingState:
    model = build_model(job.model, seed=None)
    return TrainingState(model, make_optimizer(model, job.training), job.fingerprint)


def _finished(job: TrainingJob) -> TrainingState | None:
    """The run's last state where it has taken all its steps."""
    if not checkpoint.checkpoints(job.run_folder):
        return None
    state = _empty_state(job)
    checkpoint.restore_latest(job.run_folder, state)
    return state if state.step >= job.training.steps else None


class _Follower:
    """Shows and forwards what workers have written to the log since the last call.

    A tracker that fails gets its records again, with the next ones or when the same command is given again.
    """

    def __init__(
        self, job: TrainingJob, show: Callable[[str], None], on_records: Callable[[list[Record]], None]
    ) -> None:
        self._steps, self._show, self._on_records = job.training.steps, show, on_records
        self._mark = job.run_folder / TRACKED
        resumed = origin.last_step(job.run_folder)
        log = RunLog(job.run_folder)
        log.truncate(resumed)
        self._tail = LogTail(log)
        self._tracked: dict[str, Any] = {"step": 0, "kinds": []}  # the last step, and its records that are delivered
        if self._mark.is_file():
            self._tracked = files.read_json(self._mark)
        self._waiting = [one for one in self._tail.new_records() if self._is_untracked(one)]  # shown before
        self._complaint = ""
        if resumed:
            show(f"resuming from step {resumed}" if resumed < self._steps else f"all {resumed} steps were taken before")

    def catch_up(self) -> None:
        for record in self._tail.new_records():
            self._show(text_line(record, self._steps))
            if self._is_untracked(record):  # not of a step taken again after a kill
                self._waiting.append(record)
        if not self._waiting:
            return
        last = self._waiting[-1]["step"]
        before = self._tracked["kinds"] if self._tracked["step"] == last else []
        kinds = [record["kind"] for record in self._waiting if record["step"] == last]
        tracked = {"step": last, "kinds": [*before, *kinds]}
        try:
            self._on_records(self._waiting)
            files.write_json(self._mark, tracked)
        except Exception as error:  # days of training must not end with a tracker's hiccup
            if str(error) != self._complaint:
                self._show(f"tracking failed, training goes on and will try again: {error}")
            self._complaint = str(error)
            return
        self._tracked, self._waiting, self._complaint = tracked, [], ""

    def _is_untracked(self, record: Record) -> bool:
        step, kinds = self._tracked["step"], self._tracked["kinds"]
        return record["step"] > step or (record["step"] == step and record["kind"] not in kinds)
