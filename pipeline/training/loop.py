"""The training loop of one rank; the same lines run alone, under gloo and under NCCL."""

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.data import TokenData, TokenSampler
from pipeline.errors import CheckpointError, OutputError
from pipeline.training import checkpoint
from pipeline.training.allocator import kept_memory
from pipeline.training.job import NonFiniteError, TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.parallel import Layout
from pipeline.training.saver import Saver
from pipeline.training.schedule import learning_rate, milestones
from pipeline.training.state import TrainingState
from pipeline.training.step import Stepper
from pipeline.training.throughput import Throughput, memory_bytes
from pipeline.training.validation import Validation

LOCK_WAIT_S = 60.0  # a killed driver's workers live some seconds longer


def train(job: TrainingJob, worker: Worker, report: Callable[[dict[str, float]], None]) -> TrainingState:
    """Train to the end, from the newest checkpoint where there is one.

    A file STOP in the run folder ends it early, behind a checkpoint. `report` is called on every rank once a
    checkpoint is begun. Raises NonFiniteError before a loss or gradient that is not finite can reach the weights,
    OutputError where the run folder is in use or full, CheckpointError where ranks do not see the same folder.
    """
    memory = kept_memory() if worker.device.type == "cpu" else contextlib.nullcontext()
    with memory, _sole_writer(job.run_folder, worker):
        run = _Run(job, worker, TokenData.open(job.data_folder, verify=worker.rank == 0))
        with run.saver.closing():
            state, stopping, is_log_due = run.state, False, False
            if worker.rank == 0:
                run.log.truncate(state.step)
            while state.step < job.training.steps and not stopping:
                loss_nats, is_skipped = run.take_step()
                done, stopping = state.step == job.training.steps, run.stepper.is_told_to_stop
                is_log_due |= state.step % job.cluster.log_interval == 0
                if done or (is_log_due and not is_skipped):
                    run.write_log()
                    is_log_due = False
                if done or state.step % job.training.eval_interval == 0:
                    run.validate()
                if done or run.is_time_to_save:
                    run.save()
                    report({"step": float(state.step), "loss_nats": loss_nats})
    return state


@contextlib.contextmanager
def _sole_writer(run_folder: Path, worker: Worker) -> Iterator[None]:
    """Rank 0 holds the run folder; no rank reads a checkpoint before it does."""
    with contextlib.ExitStack() as stack:
        if worker.rank == 0:
            stack.enter_context(run_lock(run_folder, LOCK_WAIT_S))
            checkpoint.sweep(run_folder)
        if worker.world_size > 1:
            dist.barrier()
        yield


class _Run:
    """The parts of one rank's run."""

    def __init__(self, job: TrainingJob, worker: Worker, data: TokenData) -> None:
        self.job, self.worker = job, worker
        training, cluster = job.training, job.cluster
        if training.precision == "bfloat16" and worker.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        sampler = TokenSampler(data.train, job.model.block_size, training.global_batch_size, training.seed)
        self.stepper = Stepper(job, worker, Layout.of(worker, cluster), sampler)
        self.state = self.stepper.state
        self._restore()
        self.began = time.monotonic() - self.state.seconds
        self.log = RunLog(job.run_folder)
        self.validation = Validation(self.stepper, data)
        self.unlogged: tuple[int, dict[str, Any]] | None = None  # the newest good step
        self.throughput = Throughput(job.model, training.precision, worker.device, worker.world_size, job.device_flops)
        every = cluster.milestone_interval
        self.milestones = {*(range(every, training.steps + 1, every) if every else ()), *milestones(training)}
        self.saver = Saver(job.run_folder, worker.rank, cluster.keep_checkpoints, self.milestones)

    def take_step(self) -> tuple[float, bool]:
        """One optimizer step: its loss, and whether it was left out.

        Raises OutputError on all ranks where one could not write its checkpoint.
        """
        self.throughput.start()
        record = self.stepper.take(fault=bool(self.saver.fault))
        self.throughput.stop(self.job.training.global_batch_size * self.job.model.block_size)
        if self.stepper.is_told_of_fault:
            raise OutputError(next(fault for fault in self._from_all(self.saver.fault) if fault))
        is_skipped = "windows" in record
        if not is_skipped:
            self.unlogged = (self.state.step, record)
        elif self.state.step == self.job.training.steps:
            self.write_log()  # of a step before this one: a follower takes records in the order of their steps
        if is_skipped and self.worker.rank == 0:
            odd = {key: str(record[key]) for key in ("loss_nats", "gradient_norm")}  # JSON knows no NaN
            self.log.append({"kind": "skipped", "step": self.state.step, **odd, "windows": record["windows"]})
        return record["loss_nats"], is_skipped

    @property
    def is_time_to_save(self) -> bool:
        step, interval = self.state.step, self.job.cluster.checkpoint_interval
        return self.stepper.is_told_to_save or step % interval == 0 or step in self.milestones

    def save(self) -> None:
        """Begin to write a checkpoint."""
        self.state.seconds, self.stepper.saved_s = time.monotonic() - self.began, time.monotonic()
        self.saver.save(self.state)

    def write_log(self) -> None:
        """A line of the run's log about the newest step that was not left out, where it has none yet."""
        if self.unlogged is None:
            return
        (step, record), self.unlogged = self.unlogged, None
        rate, mfu = self.throughput.take()
        left = (self.job.training.steps - self.state.step) * self.job.training.global_batch_size
        slowest, layout = self._slowest(), self.stepper.layout
        if self.worker.rank == 0:
            self.log.append(
                {
                    "kind": "train",
                    "step": step,
                    **record,
                    "tokens_per_s": rate,
                    "mfu": mfu,
                    "memory_bytes": memory_bytes(self.worker.device),
                    "eta_s": left * self.job.model.block_size / rate,
                    "ranks": self.worker.world_size,
                    "tp_size": layout.tp_size,
                    "fsdp": layout.fsdp,
                    **slowest,
                }
            )

    def validate(self) -> None:
        """Loss on the validation split and a text sample, into the log."""
        step, loss_nats = self.state.step, self.validation.loss_nats()
        if not math.isfinite(loss_nats):
            rate = learning_rate(step - 1, self.job.training)
            raise NonFiniteError(f"step {step}: validation loss {loss_nats} behind a learning rate of {rate:.3g}")
        self.state.validation.append({"step": step, "loss_nats": loss_nats})
        text = self.validation.sample()
        if self.worker.rank == 0:
            self.log.append({"kind": "validation", "step": step, "loss_nats": loss_nats})
            if text is not None:
                self.log.append({"kind": "sample", "step": step, "text": text})

    def _slowest(self) -> dict[str, float]:
        """The rank whose forward takes longest, and how many times the median it takes."""
        mine = self.stepper.forward_time.take()
        if self.worker.world_size == 1:
            return {}
        seconds = torch.zeros(self.worker.world_size, device=self.worker.device)
        seconds[self.worker.rank] = mine
        dist.all_reduce(seconds)
        each: list[float] = seconds.tolist()
        return {"slowest_rank": each.index(max(each)), "slowest_ratio": max(each) / max(statistics.median(each), 1e-9)}

    def _restore(self) -> None:
        """Every rank loads the checkpoint that rank 0 chose, and all make sure that it is the same one."""
        state, worker, folder = self.state, self.worker, self.job.run_folder
        if worker.world_size == 1:
            checkpoint.restore_latest(folder, state)
            return
        probe = folder / f".seen-by-all-{os.getpid()}"
        chosen: list[Any] = [None]
        if worker.rank == 0:
            probe.touch()
            chosen = [(probe.name, checkpoint.restore_latest(folder, state))]
        dist.broadcast_object_list(chosen, src=0)
        name, step = chosen[0]
        fault = ""
        if not (folder / name).exists():
            fault = f"does not see {folder} as rank 0 does: paths.runs must lie on a disk that all nodes share"
        elif worker.rank > 0 and step:
            try:
                checkpoint.restore(folder, step, state)
            except CheckpointError as error:
                fault = f"cannot read what rank 0 resumes from: {error}"
        faults = self._from_all(fault)
        if worker.rank == 0:
            probe.unlink()
        for rank, found in enumerate(faults):
            if found:
                raise CheckpointError(f"rank {rank} {found}")

    def _from_all(self, text: str) -> list[str]:
        """Every rank's `text`."""
        if self.worker.world_size == 1:
            return [text]
        texts: list[Any] = [None] * self.worker.world_size
        dist.all_gather_object(texts, text)
        return texts
