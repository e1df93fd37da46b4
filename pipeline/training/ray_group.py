"""The process group of Ray's training workers: it listens on the node's own address alone, and time-outs leave a trace.

Imports ray at once, so only `ray_launcher` imports it, where work begins.
"""

import ipaddress
import os
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from torch._C._distributed_c10d import TCPStore
from torch.distributed import distributed_c10d

FLIGHT_RECORDER = "flight_recorder"  # folder in a run's folder
RECORDED_COLLECTIVES = "2000"

_listening: list[socket.socket] = []  # in rank 0's process, between its two calls


def environment(run_folder: Path) -> dict[str, str]:
    """What NCCL and torch read when a group is made: a collective that times out ends its process and leaves a dump.

    Each rank writes <run_folder>/flight_recorder/rank_<rank>; `torchfrtrace` reads them.
    """
    return {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",  # end the process: nothing else ends a kernel that waits for ever
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_BUFFER_SIZE": RECORDED_COLLECTIVES,
        "TORCH_FR_DUMP_TEMP_FILE": str(run_folder / FLIGHT_RECORDER / "rank_"),
    }


@dataclass
class GroupConfig(TorchConfig):  # type: ignore[misc]
    """Ray's settings of a torch process group, and variables for its workers; those that are set already stay."""

    variables: dict[str, str] = field(default_factory=dict)

    @property
    def backend_cls(self) -> type:
        return _Group


class _Group(_TorchBackend):  # type: ignore[misc]
    """Ray's, but for how the workers find one another: torch's own server would listen on every interface."""

    def on_start(self, worker_group: Any, backend_config: GroupConfig) -> None:
        address = worker_group.execute_single(0, _listen)
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        joins = [
            worker_group.execute_single_async(rank, _join, rank, size, address, backend_config) for rank in range(size)
        ]
        ray.get(joins)


def _listen() -> tuple[str, int]:
    """Rank 0's node address, and the port of a socket there that `_join` will serve the group's store on."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family)
    _listening.append(server)
    return host, server.getsockname()[1]


def _join(rank: int, world_size: int, address: tuple[str, int], config: GroupConfig) -> None:
    for name, value in {**config.variables, **_interface_variables(ray.util.get_node_ip_address())}.items():
        os.environ.setdefault(name, value)
    if config.variables:
        Path(os.environ["TORCH_FR_DUMP_TEMP_FILE"]).parent.mkdir(parents=True, exist_ok=True)
    descriptor = _listening.pop().detach() if rank == 0 else None
    store = TCPStore(*address, world_size, is_master=rank == 0, master_listen_fd=descriptor)
    timeout = timedelta(seconds=config.timeout_s)
    for default in ("default_pg_timeout", "default_pg_nccl_timeout"):  # of groups that are made of this one's ranks
        setattr(distributed_c10d, default, timeout)
    dist.init_process_group(config.backend, store=store, rank=rank, world_size=world_size, timeout=timeout)


def _interface_variables(host: str) -> dict[str, str]:
    """The interface of the node's address, for gloo, which would ask for the host name's, and for NCCL on loopback."""
    named = [name for name, addresses in psutil.net_if_addrs().items() if any(one.address == host for one in addresses)]
    if not named:
        return {}
    alone = ipaddress.ip_address(host).is_loopback
    return {"GLOO_SOCKET_IFNAME": named[0]} | ({"NCCL_SOCKET_IFNAME": named[0]} if alone else {})
