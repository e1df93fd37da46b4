"""One optimizer step: gradients over the global batch, agreement among the ranks, an update or none."""

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.data import TokenSampler
from pipeline.models import Transformer
from pipeline.training.job import STOP, NonFiniteError, TrainingJob, Worker
from pipeline.training.loss import LossModule
from pipeline.training.optimizer import clip, make_optimizer
from pipeline.training.parallel import Gradients, Layout, build_part, syncing, wrap
from pipeline.training.schedule import learning_rate
from pipeline.training.state import TrainingState
from pipeline.training.stopwatch import Stopwatch

MOST_SKIPPED_IN_A_ROW = 10


class Stepper:
    """The state of one rank's run, and what takes its steps."""

    def __init__(self, job: TrainingJob, worker: Worker, layout: Layout, sampler: TokenSampler) -> None:
        self.job, self.worker, self.layout, self.sampler = job, worker, layout, sampler
        training, cluster = job.training, job.cluster
        model: Transformer = build_part(job.model, layout, training.seed).to(worker.device)
        self.loss = LossModule(model, layout.communicator())
        if cluster.compile and layout.fsdp:  # its hooks stand between the blocks
            for block in model.blocks:
                block.compile()
        self.wrapped: nn.Module = wrap(self.loss, model, layout)
        self.compiled: Callable[[Tensor, float], Tensor] = self.wrapped
        if cluster.compile and not layout.fsdp:
            self.compiled = torch.compile(self.wrapped)
        self.state = TrainingState(model, make_optimizer(model, training), job.fingerprint, layout)
        self.gradients = Gradients(model, layout)
        self.accumulation = training.global_batch_size // (cluster.micro_batch_size * layout.dp_size)
        self.forward_time = Stopwatch(worker.device)
        self.saved_s = time.monotonic()
        self.is_told_to_save = self.is_told_to_stop = self.is_told_of_fault = False
        self._skipped_in_a_row = 0

    def take(self, fault: bool = False) -> dict[str, Any]:
        """A step over the global batch: {"loss_nats", "learning_rate", "gradient_norm"}, and "windows" where its
        gradients are no numbers and it is left out. `fault`: this rank wants all to end.

        Raises NonFiniteError instead where training.non_finite is stop, or too many steps are left out in a row.
        """
        state, training = self.state, self.job.training
        rate = learning_rate(state.step, training)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        loss = self._backward()
        self.gradients.gather()
        norm = self.gradients.norm()
        loss_nats, gradient_norm = self._agree(loss, norm, fault)
        record: dict[str, Any] = {"loss_nats": loss_nats, "learning_rate": rate, "gradient_norm": gradient_norm}
        if math.isfinite(loss_nats) and math.isfinite(gradient_norm):
            clip(state.optimizer, norm, training.grad_clip)
            state.optimizer.step()
            self._skipped_in_a_row = 0
        else:
            record["windows"] = self._leave_out(loss_nats, gradient_norm)
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += training.global_batch_size * self.job.model.block_size
        return record

    def windows(self, rows: slice) -> Tensor:  # -> (rows, T + 1)
        """Rows of this step's global batch, on the device."""
        return self.to_device(self.sampler.part(self.state.step, rows))

    def to_device(self, windows: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(windows)
        if self.worker.device.type == "cuda":
            return tensor.pin_memory().to(self.worker.device, non_blocking=True)
        return tensor

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.job.training.precision == "bfloat16":
            return torch.autocast(self.worker.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _backward(self) -> Tensor:
        """Gradients of the mean loss over this rank's rows; the copies' are averaged at the last micro-batch."""
        micro = self.job.cluster.micro_batch_size
        first = self.layout.dp_rank * self.accumulation * micro
        total = torch.zeros((), device=self.worker.device)
        self.forward_time.start()
        for index in range(self.accumulation):
            windows = self.windows(slice(first + index * micro, first + (index + 1) * micro))
            with syncing(self.wrapped, index == self.accumulation - 1), self.autocast():
                loss = self.compiled(windows, 1 / self.accumulation)
                if index == 0:
                    self.forward_time.stop()
                torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _agree(self, loss: Tensor, norm: Tensor, fault: bool) -> tuple[float, float]:
        """The loss over all ranks and the norm, the step's one wait for the device; along with them all ranks learn
        whether rank 0 wants to save or stop, or one has to give up.
        """
        due = time.monotonic() - self.saved_s > 60 * self.job.cluster.checkpoint_minutes
        stop = self.worker.rank == 0 and (self.job.run_folder / STOP).exists()
        told = [float(stop or (due and self.worker.rank == 0)), float(stop), float(fault)]
        if self.worker.world_size == 1:
            loss_nats, gradient_norm = torch.stack([loss, norm]).tolist()
        else:
            shared = torch.cat([loss.reshape(1) / self.layout.dp_size, torch.tensor(told).to(loss)])
            dist.all_reduce(shared)
            loss_nats, *told, gradient_norm = torch.cat([shared, norm.reshape(1)]).tolist()
        self.is_told_to_save, self.is_told_to_stop, self.is_told_of_fault = (one > 0 for one in told)
        return loss_nats, gradient_norm

    def _leave_out(self, loss_nats: float, gradient_norm: float) -> list[int]:
        """First tokens of the windows to blame; raises NonFiniteError where the step must not be left out."""
        state, windows = self.state, self._odd_windows()
        self._skipped_in_a_row += 1
        state.skipped += 1
        if self.job.training.non_finite == "skip" and self._skipped_in_a_row <= MOST_SKIPPED_IN_A_ROW:
            return windows
        blamed = f"windows of the training split from tokens {windows}" if windows else "no window alone"
        often = f", {self._skipped_in_a_row} steps in a row" if self._skipped_in_a_row > 1 else ""
        raise NonFiniteError(
            f"step {state.step + 1}: loss {loss_nats}, gradient norm {gradient_norm}{often}, from {blamed}; "
            "the weights were not changed"
        )

    @torch.no_grad()
    def _odd_windows(self) -> list[int]:
        """First tokens of this step's windows whose own loss is no number; all ranks look for them together."""
        each = self.job.training.global_batch_size // self.layout.dp_size
        odd = torch.zeros(self.job.training.global_batch_size, device=self.worker.device)
        for row in range(self.layout.dp_rank * each, (self.layout.dp_rank + 1) * each):
            with self.autocast():
                odd[row] = (~torch.isfinite(self.loss(self.windows(slice(row, row + 1))))).float()
        if self.worker.world_size > 1:
            dist.all_reduce(odd)
        starts = self.sampler.starts(self.state.step)
        return [int(starts[row]) for row in odd.nonzero().flatten().tolist()]
