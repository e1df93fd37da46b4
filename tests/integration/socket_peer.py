"""One of two ranks that sum tensors of many sizes over SocketExchange, two at a time: run by test_socket_exchange."""

import sys

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from pipeline.communication.socket_exchange import SocketExchange

SIZES = (1, 7, 1000, 300_000)


def main(rank: int, store: str, buffer_bytes: int) -> None:
    dist.init_process_group("gloo", store=FileStore(store, 2), rank=rank, world_size=2)
    link = SocketExchange.joined("lo", buffer_bytes)
    mine, theirs = (torch.Generator().manual_seed(seed) for seed in (rank, 1 - rank))
    for turn in range(12):
        shapes = ((1, SIZES[turn % len(SIZES)]), (3, 5))
        ours = [torch.randn(shape, generator=mine) for shape in shapes]
        others = [torch.randn(shape, generator=theirs) for shape in shapes]
        handles = [link.start(tensor.clone()) for tensor in ours]
        for index in (0, 1) if turn % 2 else (1, 0):  # awaited in either order
            torch.testing.assert_close(handles[index].wait(), ours[index] + others[index], atol=0, rtol=0)
    dist.barrier()
    print("equal", link.kernel_bytes)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
