"""How numbers travel: what rounding may cost, that all ranks end with the same bits, and the bytes that it takes."""

import socket

import pytest
import torch

from pipeline.communication import CountingCommunicator
from pipeline.communication.blocking import BlockingCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.communication.transport import sent_share, steps_of
from pipeline.communication.wire import BLOCK, WIRES
from pipeline.communication.wired import WiredCommunicator

HALF_STEP = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 0.5 / 127}  # of a value's, for int8 of its block's largest


def random(count, seed, scale=1.0):
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("wire", WIRES.values(), ids=lambda wire: wire.name)
@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_a_payload_is_as_long_as_it_says_and_within_half_a_step_of_the_values(wire, count):
    x = random(count, 0)
    kept = x.clone()
    payload = wire.encode(x)
    assert payload.dtype == torch.uint8 and payload.shape == (wire.payload_bytes(x),)
    two = torch.empty(count)
    wire.add_up([payload, wire.encode(torch.zeros(count))], two)
    largest = [kept[start : start + BLOCK].abs().max() for start in range(0, count, BLOCK)]
    scale = torch.stack(largest).repeat_interleave(BLOCK)[:count] if wire.name == "int8" else kept.abs()
    assert ((two - kept).abs() <= HALF_STEP[wire.name] * scale * 1.001).all()


def test_bytes_on_the_wire():
    x = torch.zeros(8 * BLOCK)
    assert {name: wire.payload_bytes(x) for name, wire in WIRES.items()} == {
        "float32": 32 * BLOCK,
        "bfloat16": 16 * BLOCK,
        "int8": 8 * BLOCK + 8 * 4,
    }


def test_blocks_do_not_share_their_scale():
    x = torch.cat([torch.full((BLOCK,), 1e-3), torch.full((BLOCK,), 1e3)])
    out = torch.empty_like(x)
    WIRES["int8"].add_up([WIRES["int8"].encode(x)], out)
    torch.testing.assert_close(out, x, rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["bfloat16", "int8"])
def test_what_is_not_finite_stays_so(name, bad):
    x, out = torch.tensor([1.0, bad, 2.0]), torch.empty(3)
    WIRES[name].add_up([WIRES[name].encode(x), WIRES[name].encode(torch.ones(3))], out)
    assert not torch.isfinite(out[1])


def test_zeros_and_the_smallest_numbers_are_no_trouble():
    x, out = torch.tensor([0.0, 1e-42, -1e-42]), torch.empty(3)
    WIRES["int8"].add_up([WIRES["int8"].encode(x), WIRES["int8"].encode(torch.zeros(3))], out)
    torch.testing.assert_close(out, torch.zeros(3), rtol=0, atol=1e-29)


@pytest.mark.parametrize("name", [name for name in WIRES if name != "float32"])
@pytest.mark.parametrize("count", [6, 90, 130])
def test_payloads_add_up_where_a_gather_puts_them_one_behind_the_other(name, count):
    wire, ours = WIRES[name], [random(count, rank) for rank in range(3)]
    payloads = [wire.encode(x) for x in ours]
    out, alone = torch.empty(count), torch.empty(count)
    wire.add_up(list(torch.stack(payloads)), out)
    wire.add_up(payloads, alone)
    assert torch.equal(out, alone)


@pytest.mark.parametrize("name", WIRES)
def test_both_ranks_of_an_exchange_end_with_the_same_bits(name):
    ends = socket.socketpair()
    ours = [random(1000, rank, 10.0**rank) for rank in range(2)]
    for one in (0, 1):
        assert ours[one].std() > 0.5
    sides = [WiredCommunicator(SocketExchange(rank, end), WIRES[name]) for rank, end in enumerate(ends)]
    handles = [side.start(x.clone()) for side, x in zip(sides, ours, strict=True)]
    sums = [handle.wait() for handle in handles]
    assert torch.equal(sums[0], sums[1])
    allowed = 2 * HALF_STEP[name] * torch.stack(ours).abs().max()
    assert (sums[0] - (ours[0] + ours[1])).abs().max() <= allowed
    assert name == "float32" or not torch.equal(sums[0], ours[0] + ours[1])  # each rank rounds its own as well
    for end in ends:
        end.close()


def test_three_ranks_payloads_add_up_in_the_order_of_ranks():
    wire = WIRES["bfloat16"]
    ours = [random(50, seed, 100.0**seed) for seed in range(3)]
    out = torch.empty(50)
    wire.add_up([wire.encode(x) for x in ours], out)
    rounded = [x.bfloat16().float() for x in ours]
    assert torch.equal(out, (rounded[0] + rounded[1]) + rounded[2])


def test_counters_see_what_enters_and_not_what_it_was():
    class Still:
        world_size = 2

        def start(self, x, wire):
            raise AssertionError("nothing needs to travel for this")

    wired = WiredCommunicator(Still(), WIRES["int8"])
    counting = CountingCommunicator(BlockingCommunicator(wired))
    with pytest.raises(AssertionError):
        counting.start(torch.zeros(4 * BLOCK))
    assert counting.bytes == 4 * BLOCK + 4 * 4


def test_what_leaves_a_rank_beside_a_ring():
    assert [sent_share("gloo", "float32", n) for n in (2, 4, 8)] == [1.0, 1.5, 1.75]
    assert [sent_share("gloo", "int8", n) for n in (2, 4, 8)] == [1.0, 3.0, 7.0]
    assert sent_share("socket", "float32", 2) == 1.0
    assert [steps_of("gloo", "float32", n) for n in (2, 4)] == [2, 6]
    assert (steps_of("gloo", "int8", 4), steps_of("socket", "float32", 2)) == (3, 1)
