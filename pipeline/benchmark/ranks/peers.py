"""A rank's place among the others: its device and cores, and what all ranks do together."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore

from pipeline.benchmark.ranks.spec import RankSpec


class Peers:
    """The process group of one launch, joined on the spec's device, threads, cores and interface."""

    def __init__(self, spec: RankSpec, rank: int) -> None:
        self.device = torch.device("cuda", rank) if spec.device == "cuda" else torch.device("cpu")
        torch.set_num_threads(spec.threads)
        if spec.cores:
            os.sched_setaffinity(0, spec.cores[rank])
        if spec.device == "cuda":
            torch.cuda.set_device(self.device)
        os.environ["GLOO_SOCKET_IFNAME"] = spec.interfaces[rank]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if spec.device == "cuda" else "gloo",
            store=FileStore(spec.store, spec.tp_size),
            rank=rank,
            world_size=spec.tp_size,
            timeout=timedelta(seconds=spec.timeout_s),
        )

    def synchronize(self) -> None:
        """Wait for this rank's device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def barrier(self) -> None:
        self.synchronize()
        dist.all_reduce(torch.zeros(1))

    def maximum(self, values: list[float]) -> list[float]:
        """The maximum over ranks of each value."""
        shared = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return [float(value) for value in shared]

    def agree_on(self, sampled: Tensor) -> bool:  # (B,), on the host
        """Whether all ranks sampled the same tokens."""
        lowest, highest = sampled.clone(), sampled.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        return bool(torch.equal(lowest, highest))

    def close(self) -> None:
        dist.destroy_process_group()
