"""What a hidden all-reduce still costs: two ranks, matrix products, and sums that have time to arrive under them.

    python -m benchmarks.transport_speed [--link loopback|1gbit|…] [--rounds 20] [--elements 163840]

Twelve times a round a rank starts a sum, multiplies for some 20 ms, waits, and multiplies again. `socket` and `gloo`,
their sums in every wire format, and `nothing` take turns; what they add to it is waiting, rounding, or work of the
kernel and of gloo's threads on the core that multiplies. Rates need Linux and root.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from pipeline.benchmark.ranks.links import check_privilege, make_links
from pipeline.communication import Communicator, SkippedCommunicator
from pipeline.communication.distributed import DistributedCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.transport import over_wire
from pipeline.communication.wire import WIRES
from pipeline.config.link import LOOPBACK

COLLECTIVES, WARMUP = 12, 5
TOKENS, WIDTH = 256, 640


def one_round(communicator: Communicator, x: torch.Tensor, weights: list[torch.Tensor]) -> tuple[float, float]:
    """(whole, waiting) milliseconds; the slower rank's whole."""
    rows, waited = torch.ones(TOKENS, WIDTH), 0.0
    dist.barrier()
    begun = time.perf_counter()
    for _ in range(COLLECTIVES):
        handle = communicator.start(x.clone())
        rows @ weights[0] @ weights[1]
        asked = time.perf_counter()
        handle.wait()
        waited += time.perf_counter() - asked
        rows @ weights[0] @ weights[1]
    whole = torch.tensor([(time.perf_counter() - begun) * 1e3])
    dist.all_reduce(whole, dist.ReduceOp.MAX)
    return float(whole), waited * 1e3


def rank_main(rank: int, store: str, interface: str, rounds: int, elements: int) -> None:
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    dist.init_process_group("gloo", store=FileStore(store, 2), rank=rank, world_size=2)
    plain = {"socket": SocketExchange.joined(interface), "gloo": DistributedCommunicator()}
    ways: dict[str, Communicator] = {
        **{f"{name} {wire}": over_wire(way, wire) for name, way in plain.items() for wire in WIRES},
        "nothing": SkippedCommunicator(2),
    }
    x, weights = torch.zeros(elements), [torch.randn(WIDTH, 3 * WIDTH), torch.randn(3 * WIDTH, WIDTH)]
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + WARMUP):
        for name, way in ways.items():
            found = one_round(way, x, weights)
            if turn >= WARMUP:
                samples[name].append(found)
    if rank == 0:
        medians = {name: [statistics.median(part) for part in zip(*found)] for name, found in samples.items()}  # noqa: B905
        added = {
            name: round(
                statistics.median(a[0] - b[0] for a, b in zip(samples[name], samples["nothing"], strict=True)), 1
            )
            for name in ways
            if name != "nothing"
        }
        print(
            json.dumps(
                {
                    "interface": interface,
                    "bytes": 4 * elements,
                    "rounds": rounds,
                    "whole_ms": {name: round(found[0], 1) for name, found in medians.items()},
                    "waiting_ms": {name: round(found[1], 1) for name, found in medians.items()},
                    "added_ms": added,
                }
            )
        )
    dist.destroy_process_group()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--link", default="loopback")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--elements", type=int, default=TOKENS * WIDTH, help="float32 values of a sum")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--interface", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        rank_main(options.rank, options.store, options.interface, options.rounds, options.elements)
        return 0
    check_privilege([options.link])
    with make_links([options.link], 2) as links, tempfile.TemporaryDirectory() as scratch:
        if options.link != LOOPBACK:
            links.set_link(options.link)
        common = [sys.executable, "-m", "benchmarks.transport_speed", *sys.argv[1:], "--store", f"{scratch}/store"]
        ranks = [
            subprocess.Popen([*links.prefix(rank), *common, "--rank", str(rank), "--interface", interface])
            for rank, interface in enumerate(links.interfaces)
        ]
        return max(rank.wait() for rank in ranks)


if __name__ == "__main__":
    raise SystemExit(main())
