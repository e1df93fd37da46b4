"""Which communicator carries the sums on this device."""

import torch
import torch.distributed as dist

from pipeline.communication.communicator import Communicator
from pipeline.communication.distributed import DistributedCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.stream import nccl_communicator


def make_communicator(transport: str, device: torch.device, interface: str = "lo") -> Communicator:
    """The communicator of the default process group, which must have been initialised.

    On GPUs NCCL on a side stream, whatever `transport` says. On CPU `socket` joins two ranks directly; more than
    two use gloo.
    """
    if device.type == "cuda":
        return nccl_communicator(device)
    if transport == "socket" and dist.get_world_size() == 2:
        return SocketExchange(interface)
    return DistributedCommunicator()
