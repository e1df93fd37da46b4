"""Which communicator carries the sums on this device."""

import torch
import torch.distributed as dist

from pipeline.communication.communicator import Communicator
from pipeline.communication.distributed import DistributedCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.stream import nccl_communicator


def transport_name(transport: str, device: str, world_size: int) -> str:
    """What really carries the sums where `transport` is asked for: nccl, socket or gloo."""
    if device == "cuda":
        return "nccl"
    return "socket" if transport == "socket" and world_size == 2 else "gloo"


def make_communicator(transport: str, device: torch.device, interface: str = "lo") -> Communicator:
    """The communicator of the default process group, which must have been initialised.

    On GPUs NCCL on a side stream, whatever `transport` says. On CPU `socket` joins two ranks directly; more than
    two use gloo.
    """
    name = transport_name(transport, device.type, dist.get_world_size())
    if name == "nccl":
        return nccl_communicator(device)
    return SocketExchange(interface) if name == "socket" else DistributedCommunicator()
