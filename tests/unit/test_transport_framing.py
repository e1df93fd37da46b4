"""What two sides of an exchange notice about each other: every disagreement is one error, and nothing is added up."""

import socket
import struct

import pytest
import torch

from pipeline.communication.framing import HEADER_BYTES
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.wire import WIRES
from pipeline.errors import TransportError

BIG = 3_000_000  # values; more than the kernel's buffers take


@pytest.fixture
def sides():
    ends = socket.socketpair()
    yield [SocketExchange(rank, end) for rank, end in enumerate(ends)]
    for end in ends:
        end.close()


def test_two_that_agree_end_with_the_sum(sides):
    handles = [side.start(torch.full((3, 2), float(rank + 1))) for rank, side in enumerate(sides)]
    assert all(torch.equal(handle.wait(), torch.full((3, 2), 3.0)) for handle in handles)


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (lambda s: [s.start(torch.ones(5)), s.start(torch.ones(5))], lambda s: [s.start(torch.ones(10))], ("20", "40")),
        (
            lambda s: [s.start(torch.ones(5))],
            lambda s: [s.start(torch.ones(10, dtype=torch.float16))],
            ("float32", "float16"),
        ),
        (
            lambda s: [s.start(torch.ones(4), WIRES["int8"])],
            lambda s: [s.start(torch.ones(2))],
            ("format 2", "format 0"),
        ),
    ],
    ids=["sizes", "types of one size", "wire formats of one size"],
)
def test_two_that_disagree_both_name_both_values(sides, ours, theirs, says):
    handles = [ours(sides[0]), theirs(sides[1])]
    for own, other, waiting in ((0, 1, handles[0]), (1, 0, handles[1])):
        before = waiting[0].buffer.clone()
        with pytest.raises(TransportError) as caught:
            waiting[0].wait()
        text = str(caught.value)
        assert text.startswith(f"rank {own} awaits") and f"rank {other} sent" in text
        assert all(value in text for value in says), text
        assert torch.equal(waiting[0].buffer, before)  # no garbage was added
        with pytest.raises(TransportError):  # and nothing goes on
            sides[own].start(torch.ones(1))


def test_a_sum_that_one_side_left_out_is_noticed_by_its_number(sides):
    sides[1]._sequence += 1
    handles = [side.start(torch.ones(5)) for side in sides]
    with pytest.raises(TransportError, match=r"rank 0 awaits sum 0 .*rank 1 sent sum 1 "):
        handles[0].wait()


def test_a_stray_byte_is_no_sum(sides):
    sides[1].socket.send(b"\x07")
    handles = [side.start(torch.ones(5)) for side in sides]
    with pytest.raises(
        TransportError, match=r"rank 0 awaits sum 0 of 20 bytes, float32.*rank 1 sent begins no sum: 07"
    ):
        handles[0].wait()


def test_a_lost_peer_is_an_error_that_says_how_far_it_got(sides):
    handle = sides[0].start(torch.ones(5))
    other = sides[1].start(torch.ones(5))
    other.wait()
    handle.wait()
    handle = sides[0].start(torch.ones(5))
    sides[1].socket.send(bytes(3))
    sides[1].socket.close()
    with pytest.raises(TransportError, match=rf"rank 0 awaits sum 1 .*of {HEADER_BYTES + 20} bytes .*lost rank 1"):
        handle.wait()


def test_a_peer_lost_under_the_helper_is_raised_where_the_sum_is_awaited(sides):
    handle = sides[0].start(torch.ones(BIG))
    assert sides[0]._helper is not None
    sides[1].socket.close()
    sides[0]._helper.join(10)
    with pytest.raises(TransportError, match="lost rank 1"):
        handle.wait()


def test_header_and_payload_leave_in_one_call(sides, monkeypatch):
    calls = []

    class Counting:
        def __init__(self, inner):
            self.inner = inner

        def sendmsg(self, parts):
            calls.append([len(part) for part in parts])
            return self.inner.sendmsg(parts)

    monkeypatch.setattr(sides[0], "socket", Counting(sides[0].socket))
    sides[0].start(torch.ones(5))
    assert calls == [[HEADER_BYTES, 20]]


def test_a_gather_is_bit_for_bit_whatever_the_values(sides):
    odd = struct.unpack("<f", b"\x01\x02\xc0\x7f")[0]  # a NaN with a payload
    mine = [torch.tensor([1.0, odd]), torch.tensor([2.0, 3.0])]
    import threading

    found = {}
    other = threading.Thread(target=lambda: found.update({1: sides[1].gather(mine[1])}))
    other.start()
    found[0] = sides[0].gather(mine[0])
    other.join(10)
    wanted = torch.stack(mine).view(torch.int32)
    assert all(torch.equal(one.view(torch.int32), wanted) for one in found.values())
