"""A delay that the kernel does not offer: by the model of the link a sum is there no earlier, and really travels."""

import socket
import time

import pytest
import torch

from pipeline.benchmark import launches
from pipeline.benchmark.grid import expand
from pipeline.benchmark.progress import Progress
from pipeline.benchmark.ranks.links import Loopback
from pipeline.benchmark.ttft import resources
from pipeline.communication import LOCAL
from pipeline.communication.delayed import DelayedCommunicator
from pipeline.communication.socket_exchange import SocketExchange
from pipeline.compose import compose, model_config


@pytest.fixture
def sides():
    ends = socket.socketpair()
    yield [SocketExchange(rank, end) for rank, end in enumerate(ends)]
    for end in ends:
        end.close()


def delayed(sides, delay_s, rate=None, steps=1):
    return [DelayedCommunicator(side, delay_s, rate, steps) for side in sides]


def test_a_sum_is_there_after_its_bytes_and_the_delay_and_is_the_sum(sides):
    links = delayed(sides, 0.05, 320e3)  # 1000 floats: 0.1 s
    begun = time.monotonic()
    handles = [link.start(torch.full((1000,), float(rank))) for rank, link in enumerate(links)]
    assert torch.equal(handles[0].wait(), torch.full((1000,), 1.0))
    assert 0.15 <= time.monotonic() - begun < 0.2


def test_sums_share_the_rate_and_not_the_delay(sides):
    links = delayed(sides, 0.1, 640e3)  # 0.05 s a sum
    begun = time.monotonic()
    handles = [[link.start(torch.ones(1000)) for link in links] for _ in range(2)]
    time.sleep(0.1)  # what a computation hides
    for pair in handles:
        pair[0].wait()
    assert 0.2 <= time.monotonic() - begun < 0.25  # 0.05 + 0.05 + 0.1


def test_a_late_peer_is_late_by_the_delay_as_well(sides):
    links = delayed(sides, 0.1)
    first = links[0].start(torch.ones(10))
    time.sleep(0.1)
    begun = time.monotonic()
    links[1].start(torch.ones(10))
    first.wait()
    assert time.monotonic() - begun >= 0.1


def test_a_ring_pays_the_delay_of_every_step_after_its_sum_arrived():
    class Ring:
        world_size = 2

        def start(self, x):
            class Handle:
                def on_arrival(self, callback):
                    self.callback = callback

                def wait(self):
                    time.sleep(0.05)
                    self.callback()
                    return x

            return Handle()

    begun = time.monotonic()
    DelayedCommunicator(Ring(), 0.03, None, steps=2).start(torch.ones(3)).wait()
    assert 0.11 <= time.monotonic() - begun < 0.15


def test_the_delay_comes_on_top_of_what_the_link_was_found_to_carry(monkeypatch):
    monkeypatch.setattr(launches, "delayed_by", lambda link: "model")
    config = compose(["benchmark=ttft_demo", "benchmark.tp_sizes=[2]", "benchmark.architectures=[standard]"])
    monkeypatch.setattr(launches, "cells", lambda benchmark, link: [])
    monkeypatch.setattr(launches, "decode_cells", lambda benchmark: [])
    (models,) = expand(config.benchmark, model_config)[2]
    asked = {}

    class Ranks:
        processes = ()

        def command(self, name, **arguments):
            asked[name] = arguments
            return [8e6] * 2  # what `link` answers: a megabyte a second

    for link in ("loopback+2ms", "1gbit+2ms"):
        asked.clear()
        unit = launches.Unit(2, [models], [link])
        launch = launches.Launch(config.benchmark, config.cluster, unit, {}, Progress(lambda line: None, 9), 0)
        launch._cells(Ranks(), Loopback(2), models, link, resources(config.cluster, 2), 1.0)
        assert list(asked) == ["link", "delay"]
        communicator = DelayedCommunicator(LOCAL, **asked["delay"])
        assert communicator.due_s(4_000_000, started_s=1.0, arrived_s=0.0) == pytest.approx(1.0 + 4.0 + 0.002)
