"""All-reduce between two ranks over one TCP connection that the kernel drives alone.

`start` hands the tensor to the kernel's send buffer and returns; TCP carries it while the caller computes, with no
thread of this process to be scheduled against the computation; `wait` takes the peer's tensor out of the receive
buffer and adds it. Each rank sends its tensor once: as many bytes as a ring's two halves, in one step instead of two.
Where a tensor is larger than the kernel's buffers a helper thread moves it instead, for as long as it lasts.
A header goes before every payload, in the same call, and is checked: two sides that disagree never add anything up.

Why two ranks only: every rank of N would send its tensor N - 1 times, where a ring sends 2 (N - 1) / N of it: as much
for two, twice as much for four (3 against 1.5 tensors), four times as much for eight (7 against 1.75). Where links are
slow enough to matter that is what a sum takes. A ring has to forward what it received while the caller computes, which
needs a thread: that is gloo, which therefore carries the sums of more than two ranks.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.communication.framing import HEADER_BYTES, Header, read_header
from pipeline.communication.wire import PLAIN, WireFormat
from pipeline.errors import TransportError

BUFFER_BYTES = 16 << 20  # asked for in each direction; the kernel may grant less
CONNECT_TIMEOUT_S = 60.0
HELPER_POLL_S = 0.01
SIOCGIFADDR = 0x8915
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # Linux; beyond net.core.*mem_max for root


@dataclass(eq=False)  # compared by identity: two sums on their way are never the same
class Exchange:
    """One payload on its way out and its counterpart on its way in, a header before each."""

    communicator: "SocketExchange"
    wire: WireFormat
    buffer: Tensor
    outgoing: Tensor  # (payload bytes,) uint8; may share the buffer's memory
    incoming: Tensor  # (payload bytes,) uint8
    header: Header
    sent: int = 0  # header included, as below
    received: int = 0
    peer_header: bytearray = field(default_factory=lambda: bytearray(HEADER_BYTES))
    peer: Header | None = None

    def __post_init__(self) -> None:
        self.packed = self.header.pack()
        self.total = HEADER_BYTES + self.incoming.numel()

    @property
    def is_received(self) -> bool:
        return self.received == self.total

    @property
    def is_sent(self) -> bool:
        return self.sent == self.total

    @property
    def started_s(self) -> float:
        """When both ranks had started it, seconds of the machine's monotonic clock; ranks share a machine."""
        theirs = self.peer.started_ns if self.peer is not None else 0
        return max(self.header.started_ns, theirs) / 1e9

    def wait(self) -> Tensor:
        """The sum, in the caller's own tensor; raises TransportError where the two sides do not exchange the same."""
        self.communicator.finish(self)
        payloads = [self.outgoing, self.incoming]
        self.wire.add_up(payloads if self.communicator.rank == 0 else payloads[::-1], self.buffer)
        self.communicator.give_back(self.incoming)
        return self.buffer


class SocketExchange:
    """Sums between exactly two ranks on CPU. Collectives complete in the order they were started."""

    world_size = 2

    def __init__(self, rank: int, connection: socket.socket) -> None:
        """`connection` leads to the other of ranks 0 and 1."""
        self.rank, self.socket = rank, connection
        self.socket.setblocking(False)
        self.kernel_bytes = min(
            self.socket.getsockopt(socket.SOL_SOCKET, option) // 2 for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)
        )  # Linux reports twice what data may fill
        self._outbox: deque[Exchange] = deque()
        self._inbox: deque[Exchange] = deque()
        self._spare: dict[int, list[Tensor]] = {}  # buffers of sums that are over, by size
        self._lock = threading.Lock()
        self._helper: threading.Thread | None = None
        self._sequence = 0
        self._broken: TransportError | None = None  # after which nothing is exchanged any more

    @classmethod
    def joined(cls, interface: str = "lo", buffer_bytes: int = BUFFER_BYTES) -> "SocketExchange":
        """Connect the two ranks of the default process group; raises OSError where they cannot meet."""
        rank = dist.get_rank()
        return cls(rank, _connect(rank, interface, buffer_bytes))

    def start(self, x: Tensor, wire: WireFormat = PLAIN) -> Exchange:
        """Begin the sum; raises TransportError once the two sides have disagreed."""
        buffer = x.contiguous()
        outgoing = wire.encode(buffer)
        size = outgoing.numel()
        pool = self._spare.setdefault(size, [])
        incoming = pool.pop() if pool else torch.empty(size, dtype=torch.uint8)
        header = Header(self._sequence, buffer.dtype, wire.code, size, time.monotonic_ns())
        exchange = Exchange(self, wire, buffer, outgoing, incoming, header)
        self._sequence += 1
        with self._lock:
            self._outbox.append(exchange)
            self._inbox.append(exchange)
            self._checked(self._send)
        if exchange.total > self.kernel_bytes and (self._helper is None or not self._helper.is_alive()):
            self._helper = threading.Thread(target=self._help, daemon=True)
            self._helper.start()
        return exchange

    def gather(self, x: Tensor) -> Tensor:  # (...) -> (2, ...)
        """Both ranks' `x`, bit for bit; waits for it."""
        exchange = self.start(x)
        self.finish(exchange)
        theirs = exchange.incoming.view(x.dtype).view_as(x)
        gathered = torch.stack((exchange.buffer, theirs) if self.rank == 0 else (theirs, exchange.buffer))
        self.give_back(exchange.incoming)
        return gathered

    def finish(self, exchange: Exchange) -> None:
        """Move bytes until `exchange` has been received, and sent: its own buffer must not change before."""
        while True:
            with self._lock:
                done = exchange.is_received and exchange.is_sent
                moved = not done and self._move()
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
        """Move bytes both ways until nothing is on its way; whoever waits raises what went wrong."""
        while True:
            with self._lock:
                if self._broken is not None or (not self._inbox and not self._outbox):
                    return
                try:
                    moved = self._move()
                except TransportError:
                    return
                readers, writers = self._interests()
            if not moved:
                select.select(readers, writers, [], HELPER_POLL_S)

    def _interests(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """What to wait for: only what this side has begun, for the peer may be ahead."""
        return [self.socket] if self._inbox else [], [self.socket] if self._outbox else []

    def _move(self) -> bool:
        """Receive, else send; whether anything moved."""
        return self._checked(self._receive) or self._checked(self._send)

    def _checked(self, step: Callable[[], bool]) -> bool:
        """`step`, whose first failure is every later one's; the other side learns of it by the connection's end."""
        if self._broken is not None:
            raise self._broken
        try:
            return step()
        except OSError as error:
            self._broken = self._lost(str(error))
        except TransportError as error:
            self._broken = error
        with contextlib.suppress(OSError):  # what this side has sent still arrives, so that both can name both
            self.socket.shutdown(socket.SHUT_WR)
        raise self._broken

    def _lost(self, how: str) -> TransportError:
        if not self._inbox:
            return TransportError(f"rank {self.rank} lost rank {1 - self.rank} while it sent: {how}")
        oldest = self._inbox[0]
        return TransportError(
            f"rank {self.rank} awaits {oldest.header}; it has sent {oldest.sent} and got {oldest.received} of "
            f"{oldest.total} bytes (header included) and lost rank {1 - self.rank}: {how}"
        )

    def _send(self) -> bool:
        """Give the kernel what it takes now, header and payload in one call; whether anything went."""
        moved = False
        while self._outbox:
            oldest = self._outbox[0]
            payload = _bytes_of(oldest.outgoing)[max(0, oldest.sent - HEADER_BYTES) :]
            try:
                if oldest.sent < HEADER_BYTES:
                    oldest.sent += self.socket.sendmsg([oldest.packed[oldest.sent :], payload])
                else:
                    oldest.sent += self.socket.send(payload)
            except BlockingIOError:
                return moved
            moved = True
            if oldest.is_sent:
                self._outbox.popleft()
        return moved

    def _receive(self) -> bool:
        """Take what the kernel has for the oldest exchange, whose header is checked first; whether anything came."""
        if not self._inbox:
            return False
        oldest = self._inbox[0]
        payload = _bytes_of(oldest.incoming)[max(0, oldest.received - HEADER_BYTES) :]
        try:
            if oldest.received < HEADER_BYTES:
                count = self.socket.recvmsg_into([memoryview(oldest.peer_header)[oldest.received :], payload])[0]
            else:
                count = self.socket.recv_into(payload)
        except BlockingIOError:
            return False
        if count == 0:
            raise self._lost("it closed the connection")
        oldest.received += count
        if oldest.peer is None and oldest.received >= HEADER_BYTES:
            names = (f"rank {self.rank}", f"rank {1 - self.rank}")
            oldest.peer = read_header(bytes(oldest.peer_header), oldest.header, *names)
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
