"""The loss on validation text, and a text sample beside it."""

import numpy as np
import torch
import torch.distributed as dist

from pipeline.data import TokenData, load_tokenizer
from pipeline.training.step import Stepper

PROMPT_TOKENS = 8


class Validation:
    """Windows spread evenly over the validation split, shared out over the copies of the model."""

    def __init__(self, stepper: Stepper, data: TokenData) -> None:
        self.stepper, self.val = stepper, data.val
        self.tokenizer = load_tokenizer(data.folder)

    @torch.no_grad()
    def loss_nats(self) -> float:
        """Mean loss over training.eval_windows windows; all ranks take part."""
        stepper, layout, job = self.stepper, self.stepper.layout, self.stepper.job
        block, micro = job.model.block_size, job.cluster.micro_batch_size
        count = max(1, min(job.training.eval_windows, (self.val.tokens - 1) // block))
        length = min(block + 1, self.val.tokens)
        starts = np.linspace(0, self.val.tokens - length, count).astype(np.int64)
        mine = starts[layout.dp_rank :: layout.dp_size]
        most = -(-count // layout.dp_size)  # all copies make as many passes: with FSDP each needs the others
        total = torch.zeros(2, dtype=torch.float64, device=stepper.worker.device)  # sum of losses, windows
        for begin in range(0, most, micro):
            these = mine[begin : begin + micro]
            read = these if len(these) else starts[:1]
            windows = np.stack([self.val.read(int(start), length) for start in read])
            with stepper.autocast():
                share = stepper.loss(stepper.to_device(windows))  # () of this rank's rows; the ranks' sum is the mean
            counted = len(these) if layout.placement.rank == 0 else 0
            total += torch.tensor([float(share) * len(these), counted], dtype=torch.float64).to(total)
        if stepper.worker.world_size > 1:
            dist.all_reduce(total)
        return float(total[0] / total[1])

    def sample(self) -> str | None:
        """A continuation of the first validation tokens; None where there is no room for one, or on another's rank."""
        stepper, job = self.stepper, self.stepper.job
        new = min(job.training.sample_tokens, job.model.block_size - PROMPT_TOKENS)
        together = stepper.layout.fsdp or stepper.layout.tp_size > 1  # one rank alone has not all weights
        if new <= 0 or (stepper.worker.rank > 0 and not together):
            return None
        prompt = torch.from_numpy(self.val.read(0, min(PROMPT_TOKENS, self.val.tokens)))[None]  # (1, t)
        tokens = stepper.loss.generate(prompt.to(stepper.worker.device), new, stepper.state.step)
        ids = [token for token in tokens[0].tolist() if token < self.tokenizer.vocab_size]  # padding rows have no text
        return self.tokenizer.decode(ids)
