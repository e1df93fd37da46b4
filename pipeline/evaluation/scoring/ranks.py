"""A scorer over tensor-parallel ranks: rank 0 here, the others in processes that make the same calls."""

import contextlib
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from pipeline.communication.distributed import DistributedCommunicator
from pipeline.errors import RunError
from pipeline.evaluation.scoring.scorer import Scorer
from pipeline.evaluation.scoring.source import ModelSource
from pipeline.models import Placement

TIMEOUT = datetime.timedelta(hours=2)  # ranks wait for rank 0 while it tokenises


@contextlib.contextmanager
def open_scorer(source: ModelSource, device: str, batch_size: int, tp_size: int = 1) -> Iterator[Scorer]:
    """A scorer of the model at `source`; with tp_size > 1 its ranks run until the block ends.

    On "cuda" rank r has GPU r. Raises CheckpointError for a damaged model, RunError where a rank fails.
    """
    if tp_size == 1:
        yield Scorer(source.load(device=device), batch_size=batch_size)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "store").as_uri()
        threads = max(1, torch.get_num_threads() // tp_size)
        shared = (tp_size, meeting, source, device, batch_size, threads)
        ranks = [context.Process(target=_follow, args=(rank, *shared), daemon=True) for rank in range(1, tp_size)]
        for rank in ranks:
            rank.start()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            scorer = _join(0, *shared[:-1])
            yield scorer
            _broadcast(("stop", ()))
        except RuntimeError as error:  # gloo and NCCL raise it when a peer is gone
            dead = [rank for rank, process in enumerate(ranks, 1) if process.exitcode not in (None, 0)]
            raise RunError(
                f"scoring over {tp_size} ranks failed (ranks that died: {dead or 'none'}): {error}"
            ) from error
        finally:
            torch.set_num_threads(before)
            if dist.is_initialized():
                dist.destroy_process_group()
            for process in ranks:
                process.join(timeout=10)
                if process.is_alive():
                    process.kill()


def _join(rank: int, tp_size: int, meeting: str, source: ModelSource, device: str, batch_size: int) -> Scorer:
    own = f"cuda:{rank}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=tp_size, timeout=TIMEOUT)
    model = source.load(Placement(rank, tp_size), own)
    scorer = Scorer(model, DistributedCommunicator(), batch_size)
    scorer.agree = lambda stop: bool(_broadcast(stop))
    if rank == 0:
        scorer.announce = lambda name, *arguments: _broadcast((name, arguments))
    return scorer


def _follow(
    rank: int, tp_size: int, meeting: str, source: ModelSource, device: str, batch_size: int, threads: int
) -> None:
    """What ranks 1 … run: the calls that rank 0 names, until it says stop."""
    torch.set_num_threads(threads)
    scorer = _join(rank, tp_size, meeting, source, device, batch_size)
    while True:
        name, arguments = _broadcast(None)
        if name == "stop":
            break
        getattr(scorer, name)(*arguments)
    dist.destroy_process_group()


def _broadcast(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
