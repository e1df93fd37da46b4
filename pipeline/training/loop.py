"""The training loop of one worker; the same lines run alone, under gloo and under NCCL."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.data import TokenData, TokenSampler, load_tokenizer
from pipeline.errors import CheckpointError
from pipeline.models import build_model
from pipeline.models.generate import generate
from pipeline.training import checkpoint
from pipeline.training.job import STOP, NonFiniteError, TrainingJob, Worker
from pipeline.training.lock import run_lock
from pipeline.training.log import RunLog
from pipeline.training.loss import LossModule
from pipeline.training.optimizer import make_optimizer
from pipeline.training.schedule import learning_rate
from pipeline.training.state import TrainingState
from pipeline.training.throughput import Throughput, memory_bytes

PROMPT_TOKENS = 8
LOCK_WAIT_S = 60.0  # a killed driver's workers live some seconds longer


def train(job: TrainingJob, worker: Worker, report: Callable[[dict[str, float]], None]) -> TrainingState:
    """Train to the end, from the newest checkpoint where there is one.

    A file STOP in the run folder ends it early, behind a checkpoint. `report` is called on every rank after each
    checkpoint. Raises NonFiniteError before a loss or gradient that is not finite can reach the weights, OutputError
    where the run folder is in use or full, CheckpointError where workers do not see the same folder.
    """
    with _sole_writer(job.run_folder, worker):
        run = _Run(job, worker, TokenData.open(job.data_folder, verify=worker.rank == 0))
        state = run.state
        if worker.rank == 0:
            run.log.truncate(state.step)
        stopping = False
        while state.step < job.training.steps and not stopping:
            record = run.take_step()
            done, stopping = state.step == job.training.steps, run.is_told_to_stop
            if done or state.step % job.cluster.log_interval == 0:
                run.write_log(record)
            if done or state.step % job.training.eval_interval == 0:
                run.validate()
            if done or run.is_told_to_save or state.step % job.cluster.checkpoint_interval == 0:
                run.save()
                report({"step": float(state.step), "loss_nats": record["loss_nats"]})
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
    """The parts of one worker's run."""

    def __init__(self, job: TrainingJob, worker: Worker, data: TokenData) -> None:
        self.job, self.worker, self.data = job, worker, data
        training, cluster = job.training, job.cluster
        if training.precision == "bfloat16" and worker.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        model = build_model(job.model, seed=training.seed).to(worker.device)
        self.state = TrainingState(model, make_optimizer(model, training), job.fingerprint)
        self._restore()
        self.saved_s = time.monotonic()
        self.is_told_to_save = self.is_told_to_stop = False
        self.began = time.monotonic() - self.state.seconds
        self.sampler = TokenSampler(data.train, job.model.block_size, training.global_batch_size, training.seed)
        self.tokenizer = load_tokenizer(job.data_folder)
        self.log = RunLog(job.run_folder)
        self.throughput = Throughput(job.model, training.precision, worker.device, worker.world_size, job.device_flops)
        self.accumulation = training.global_batch_size // (cluster.micro_batch_size * worker.world_size)
        self.loss_module: nn.Module = LossModule(model)
        if worker.world_size > 1:
            self.loss_module = DistributedDataParallel(self.loss_module, gradient_as_bucket_view=True)
        self.compiled: Callable[[Tensor], Tensor] = self.loss_module
        if cluster.compile:
            self.compiled = torch.compile(self.loss_module)

    def take_step(self) -> dict[str, float]:
        """One optimizer step over the global batch."""
        state, training = self.state, self.job.training
        self.throughput.start()
        rate = learning_rate(state.step, training)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward()
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), training.grad_clip or math.inf)
        loss_nats, gradient_norm = self._agree(loss), float(norm)
        if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):
            raise NonFiniteError(
                f"step {state.step + 1}: loss {loss_nats}, gradient norm {gradient_norm}; the weights were not changed"
            )
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        tokens = training.global_batch_size * self.job.model.block_size
        state.step += 1
        state.tokens += tokens
        self.throughput.stop(tokens)
        return {"loss_nats": loss_nats, "learning_rate": rate, "gradient_norm": gradient_norm}

    def save(self) -> None:
        """Write a checkpoint, on rank 0."""
        self.state.seconds, self.saved_s = time.monotonic() - self.began, time.monotonic()
        if self.worker.rank == 0:
            checkpoint.save(self.job.run_folder, self.state)

    def _restore(self) -> None:
        """Every worker loads the checkpoint that rank 0 chose, and all make sure that it is the same one."""
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
        faults: list[Any] = [None] * worker.world_size
        dist.all_gather_object(faults, fault)
        if worker.rank == 0:
            probe.unlink()
        for rank, found in enumerate(faults):
            if found:
                raise CheckpointError(f"rank {rank} {found}")

    def _agree(self, loss: Tensor) -> float:
        """The loss, averaged over the workers; along with it all of them learn whether rank 0 wants to save or stop."""
        due = time.monotonic() - self.saved_s > 60 * self.job.cluster.checkpoint_minutes
        stop = self.worker.rank == 0 and (self.job.run_folder / STOP).exists()
        told = torch.tensor([float(stop or (due and self.worker.rank == 0)), float(stop)], device=loss.device)
        shared = torch.cat([loss.reshape(1) / self.worker.world_size, told])
        if self.worker.world_size > 1:
            dist.all_reduce(shared)
        self.is_told_to_save, self.is_told_to_stop = bool(shared[1] > 0), bool(shared[2] > 0)
        return float(shared[0])

    def _backward(self) -> Tensor:
        """Gradients of the mean loss over this worker's rows; DDP averages them at the last micro-batch."""
        micro = self.job.cluster.micro_batch_size
        first = self.worker.rank * self.accumulation * micro
        total = torch.zeros((), device=self.worker.device)
        for index in range(self.accumulation):
            rows = slice(first + index * micro, first + (index + 1) * micro)
            windows = self._to_device(self.sampler.part(self.state.step, rows))
            last = index == self.accumulation - 1
            with self._without_sync(last), self._autocast():
                loss = self.compiled(windows) / self.accumulation
                torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _without_sync(self, last: bool) -> contextlib.AbstractContextManager[None]:
        if isinstance(self.loss_module, DistributedDataParallel) and not last:
            return self.loss_module.no_sync()
        return contextlib.nullcontext()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.job.training.precision == "bfloat16":
            return torch.autocast(self.worker.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _to_device(self, windows: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(windows)
        if self.worker.device.type == "cuda":
            return tensor.pin_memory().to(self.worker.device, non_blocking=True)
        return tensor

    def write_log(self, record: dict[str, float]) -> None:
        rate, mfu = self.throughput.take()
        left = (self.job.training.steps - self.state.step) * self.job.training.global_batch_size
        if self.worker.rank == 0:
            self.log.append(
                {
                    "kind": "train",
                    "step": self.state.step,
                    **record,
                    "tokens_per_s": rate,
                    "mfu": mfu,
                    "memory_bytes": memory_bytes(self.worker.device),
                    "eta_s": left * self.job.model.block_size / rate,
                }
            )

    @torch.no_grad()
    def validate(self) -> None:
        """Loss over windows spread evenly over the validation split, shared out over the workers."""
        val, block = self.data.val, self.job.model.block_size
        count = max(1, min(self.job.training.eval_windows, (val.tokens - 1) // block))
        length = min(block + 1, val.tokens)
        starts = np.linspace(0, val.tokens - length, count).astype(np.int64)[self.worker.rank :: self.worker.world_size]
        total = torch.zeros(2, dtype=torch.float64, device=self.worker.device)  # sum of losses, windows
        micro = self.job.cluster.micro_batch_size
        for begin in range(0, len(starts), micro):
            windows = np.stack([val.read(int(start), length) for start in starts[begin : begin + micro]])
            with self._autocast():
                loss = LossModule(self.state.model)(self._to_device(windows))
            total += torch.tensor([float(loss) * len(windows), len(windows)], dtype=torch.float64).to(total)
        if self.worker.world_size > 1:
            dist.all_reduce(total)
        loss_nats = float(total[0] / total[1])
        self.state.validation.append({"step": self.state.step, "loss_nats": loss_nats})
        if self.worker.rank == 0:
            self.log.append({"kind": "validation", "step": self.state.step, "loss_nats": loss_nats})
            self._write_sample()

    def _write_sample(self) -> None:
        """A continuation of the first validation tokens."""
        new = min(self.job.training.sample_tokens, self.job.model.block_size - PROMPT_TOKENS)
        if new <= 0:
            return
        prompt = torch.from_numpy(self.data.val.read(0, min(PROMPT_TOKENS, self.data.val.tokens)))[None]
        tokens = generate(self.state.model, prompt.to(self.worker.device), new, seed=self.state.step)
        ids = [token for token in tokens[0].tolist() if token < self.tokenizer.vocab_size]  # padding rows have no text
        self.log.append({"kind": "sample", "step": self.state.step, "text": self.tokenizer.decode(ids)})
