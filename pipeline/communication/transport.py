"""Which communicator carries the sums on this device."""

import torch
import torch.distributed as dist

from pipeline.communication.communicator import Communicator
from pipeline.communication.distributed import DistributedCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.stream import nccl_communicator
from pipeline.communication.wire import PLAIN, WIRES
from pipeline.communication.wired import WiredCommunicator


def transport_name(transport: str, device: str, world_size: int) -> str:
    """What really carries the sums where `transport` is asked for: nccl, socket or gloo."""
    if device == "cuda":
        return "nccl"
    return "socket" if transport == "socket" and world_size == 2 else "gloo"


def over_wire(communicator: Communicator, wire: str) -> Communicator:
    """The same transport with its sums in a wire format; raises ValueError for GPUs', which sum as they are."""
    if wire == PLAIN.name:
        return communicator
    if not isinstance(communicator, SocketExchange | DistributedCommunicator):
        raise ValueError(f"sums as {wire} need a socket or gloo on CPU")
    return WiredCommunicator(communicator, WIRES[wire])


def steps_of(transport: str, wire: str, n_ranks: int) -> int:
    """Messages of one sum that wait for each other: what a link's delay is paid for."""
    if transport == "socket":
        return 1
    return (1 if wire != PLAIN.name else 2) * (n_ranks - 1)


def sent_share(transport: str, wire: str, n_ranks: int) -> float:
    """What a rank sends of a sum, in payloads: a ring's 2 (N - 1) / N, or one to each of the others."""
    if n_ranks == 1:
        return 0.0
    return float(n_ranks - 1) if transport == "socket" or wire != PLAIN.name else 2 * (n_ranks - 1) / n_ranks


def make_communicator(transport: str, device: torch.device, interface: str = "lo") -> Communicator:
    """The communicator of the default process group, which must have been initialised.

    On GPUs NCCL on a side stream, whatever `transport` says. On CPU `socket` joins two ranks directly; more than
    two use gloo.
    """
    name = transport_name(transport, device.type, dist.get_world_size())
    if name == "nccl":
        return nccl_communicator(device)
    carrier: Communicator = SocketExchange.joined(interface) if name == "socket" else DistributedCommunicator()
    return carrier
