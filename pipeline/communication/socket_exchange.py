"""All-reduce between two ranks over one TCP connection that the kernel drives alone.

`start` hands the tensor to the kernel's send buffer and returns; TCP carries it while the caller computes, with no
thread of this process to be scheduled against the computation; `wait` takes the peer's tensor out of the receive
buffer and adds it. Each rank sends its tensor once: as many bytes as a ring's two halves, in one step instead of two.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUFFER_BYTES = 16 << 20  # asked for in each direction; the kernel may grant less
CONNECT_TIMEOUT_S = 60.0
SIOCGIFADDR = 0x8915
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # Linux; beyond net.core.*mem_max for root


@dataclass(eq=False)  # compared by identity: two sums on their way are never the same
class Exchange:
    """One tensor on its way out and its counterpart on its way in."""

    communicator: "SocketExchange"
    buffer: Tensor
    incoming: Tensor | None = None
    received: int = 0

    def wait(self) -> Tensor:
        self.communicator.finish(self)
        assert self.incoming is not None
        return self.buffer.add_(self.incoming.view_as(self.buffer))


class SocketExchange:
    """Sums between exactly two ranks on CPU. Collectives complete in the order they were started."""

    world_size = 2

    def __init__(self, interface: str = "lo") -> None:
        """Connect the two ranks of the default process group; raises ConnectionError where they cannot meet."""
        self.rank = dist.get_rank()
        self.socket = _connect(self.rank, interface)
        self.socket.setblocking(False)
        self._outbox: deque[memoryview] = deque()
        self._inbox: deque[Exchange] = deque()
        self._spare: dict[int, list[Tensor]] = {}

    def start(self, x: Tensor) -> Exchange:
        exchange = Exchange(self, x.contiguous())
        # what goes out is a copy where the kernel cannot take it at once; x itself is only changed by wait
        self._outbox.append(_bytes_of(exchange.buffer))
        self._inbox.append(exchange)
        self._send()
        return exchange

    def finish(self, exchange: Exchange) -> None:
        """Receive until `exchange` is complete, sending what is left over meanwhile."""
        while exchange.incoming is None or exchange.received < _size(exchange.buffer) or self._outbox:
            if not self._receive() and not self._send():
                readers = [self.socket] if self._inbox else []
                select.select(readers, [self.socket] if self._outbox else [], [])
            if exchange not in self._inbox and not self._outbox:
                return

    def _send(self) -> bool:
        """Give the kernel what it takes now; whether anything went."""
        moved = False
        while self._outbox:
            try:
                sent = self.socket.send(self._outbox[0])
            except BlockingIOError:
                return moved
            moved = True
            if sent == len(self._outbox[0]):
                self._outbox.popleft()
            else:
                self._outbox[0] = self._outbox[0][sent:]
        return moved

    def _receive(self) -> bool:
        """Take what the kernel has for the oldest exchange; whether anything came."""
        if not self._inbox:
            return False
        oldest = self._inbox[0]
        size = _size(oldest.buffer)
        if oldest.incoming is None:
            oldest.incoming = torch.empty_like(oldest.buffer)
        view = _bytes_of(oldest.incoming)
        try:
            count = self.socket.recv_into(view[oldest.received :])
        except BlockingIOError:
            return False
        if count == 0:
            raise ConnectionError("the other rank closed its connection")
        oldest.received += count
        if oldest.received == size:
            self._inbox.popleft()
        return True


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _connect(rank: int, interface: str) -> socket.socket:
    """Rank 0 listens on a free port that it tells rank 1 through the process group."""
    listener = None
    address: list[Any] = [None]
    if rank == 0:
        listener = socket.create_server((_address(interface), 0))
        listener.settimeout(CONNECT_TIMEOUT_S)
        address = [listener.getsockname()[:2]]
    dist.broadcast_object_list(address, src=0)
    if listener is not None:
        connection, _ = listener.accept()
        listener.close()
    else:
        connection = socket.create_connection(address[0], timeout=CONNECT_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for plain, forced in ((socket.SO_SNDBUF, SO_SNDBUFFORCE), (socket.SO_RCVBUF, SO_RCVBUFFORCE)):
        connection.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
        with contextlib.suppress(OSError):  # root only
            connection.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
    return connection


def _address(interface: str) -> str:
    """IPv4 address of a network interface."""
    if interface == "lo" or os.name != "posix":
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        packed = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    return socket.inet_ntoa(packed[20:24])
