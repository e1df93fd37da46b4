"""All-reduce between two ranks over one TCP connection that the kernel drives alone.

`start` hands the tensor to the kernel's send buffer and returns; TCP carries it while the caller computes, with no
thread of this process to be scheduled against the computation; `wait` takes the peer's tensor out of the receive
buffer and adds it. Each rank sends its tensor once: as many bytes as a ring's two halves, in one step instead of two.
Where a tensor is larger than the kernel's buffers a helper thread moves it instead, for as long as it lasts.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUFFER_BYTES = 16 << 20  # asked for in each direction; the kernel may grant less
CONNECT_TIMEOUT_S = 60.0
HELPER_POLL_S = 0.01
SIOCGIFADDR = 0x8915
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # Linux; beyond net.core.*mem_max for root


@dataclass(eq=False)  # compared by identity: two sums on their way are never the same
class Exchange:
    """One tensor on its way out and its counterpart, as bytes, on its way in."""

    communicator: "SocketExchange"
    buffer: Tensor
    incoming: Tensor
    sent: int = 0
    received: int = 0

    @property
    def is_received(self) -> bool:
        return self.received == self.incoming.numel()

    @property
    def is_sent(self) -> bool:
        return self.sent == self.incoming.numel()

    def wait(self) -> Tensor:
        self.communicator.finish(self)
        self.buffer.add_(self.incoming.view(self.buffer.dtype).view_as(self.buffer))
        self.communicator.give_back(self.incoming)
        return self.buffer


class SocketExchange:
    """Sums between exactly two ranks on CPU. Collectives complete in the order they were started."""

    world_size = 2

    def __init__(self, interface: str = "lo", buffer_bytes: int = BUFFER_BYTES) -> None:
        """Connect the two ranks of the default process group; raises OSError where they cannot meet."""
        self.rank = dist.get_rank()
        self.socket = _connect(self.rank, interface, buffer_bytes)
        self.socket.setblocking(False)
        self.kernel_bytes = min(
            self.socket.getsockopt(socket.SOL_SOCKET, option) // 2 for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)
        )  # Linux reports twice what data may fill
        self._outbox: deque[Exchange] = deque()
        self._inbox: deque[Exchange] = deque()
        self._spare: dict[int, list[Tensor]] = {}  # buffers of sums that are over, by size
        self._lock = threading.Lock()
        self._helper: threading.Thread | None = None

    def start(self, x: Tensor) -> Exchange:
        buffer = x.contiguous()
        size = buffer.numel() * buffer.element_size()
        pool = self._spare.setdefault(size, [])
        exchange = Exchange(self, buffer, pool.pop() if pool else torch.empty(size, dtype=torch.uint8))
        with self._lock:
            self._outbox.append(exchange)
            self._inbox.append(exchange)
            self._send()
        if size > self.kernel_bytes and (self._helper is None or not self._helper.is_alive()):
            self._helper = threading.Thread(target=self._help, daemon=True)
            self._helper.start()
        return exchange

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (2, ...)
        exchange = self.start(x)
        self.finish(exchange)
        other = exchange.incoming.view(x.dtype).view_as(x)
        both = torch.stack([exchange.buffer, other] if self.rank == 0 else [other, exchange.buffer])
        self.give_back(exchange.incoming)
        return both

    def finish(self, exchange: Exchange) -> None:
        """Move bytes until `exchange` has been received, and sent: its own buffer must not change before."""
        while True:
            with self._lock:
                moved = self._receive() or self._send()
                done = exchange.is_received and exchange.is_sent
                readers, writers = self._interests()
            if done:
                return
            if not moved:
                # the helper may take the last bytes while this thread waits for them
                select.select(readers, writers, [], HELPER_POLL_S if self._helper is not None else None)

    def give_back(self, incoming: Tensor) -> None:
        """A buffer that later sums of its size may use."""
        self._spare[incoming.numel()].append(incoming)

    def _help(self) -> None:
        """Move bytes both ways until nothing is on its way."""
        while True:
            with self._lock:
                if not self._inbox and not self._outbox:
                    return
                moved = self._receive() or self._send()
                readers, writers = self._interests()
            if not moved:
                select.select(readers, writers, [], HELPER_POLL_S)

    def _interests(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """What to wait for: only what this side has begun, for the peer may be ahead."""
        return [self.socket] if self._inbox else [], [self.socket] if self._outbox else []

    def _send(self) -> bool:
        """Give the kernel what it takes now; whether anything went."""
        moved = False
        while self._outbox:
            oldest = self._outbox[0]
            try:
                oldest.sent += self.socket.send(_bytes_of(oldest.buffer.view(-1).view(torch.uint8))[oldest.sent :])
            except BlockingIOError:
                return moved
            moved = True
            if oldest.is_sent:
                self._outbox.popleft()
        return moved

    def _receive(self) -> bool:
        """Take what the kernel has for the oldest exchange; whether anything came."""
        if not self._inbox:
            return False
        oldest = self._inbox[0]
        try:
            count = self.socket.recv_into(_bytes_of(oldest.incoming)[oldest.received :])
        except BlockingIOError:
            return False
        if count == 0:
            raise ConnectionError("the other rank closed its connection")
        oldest.received += count
        if oldest.is_received:
            self._inbox.popleft()
        return True


def _bytes_of(flat: Tensor) -> memoryview:  # (bytes,) uint8
    return memoryview(flat.detach().numpy())  # type: ignore[arg-type]  # numpy's stub hides the buffer protocol


def _connect(rank: int, interface: str, buffer_bytes: int) -> socket.socket:
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
        connection.setsockopt(socket.SOL_SOCKET, plain, buffer_bytes)
        with contextlib.suppress(OSError):  # root only
            connection.setsockopt(socket.SOL_SOCKET, forced, buffer_bytes)
    return connection


def _address(interface: str) -> str:
    """IPv4 address of a network interface."""
    if interface == "lo" or os.name != "posix":
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        packed = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    return socket.inet_ntoa(packed[20:24])
