"""Links by name: their rate, their delay, and who brings the delay about, decided before ranks start."""

import os
import shutil
import subprocess
import sys

import pytest

from pipeline.benchmark.ranks import links
from pipeline.config.link import LinkConfig, bits_per_second, delay_seconds
from pipeline.errors import MissingRequirementError


@pytest.fixture
def netem(monkeypatch):
    return lambda there: monkeypatch.setattr(links, "offers_netem", lambda: there)


@pytest.mark.parametrize(
    ("name", "rate", "delay"),
    [
        ("loopback", None, 0.0),
        ("300mbit", 3e8, 0.0),
        ("1.5gbit+2ms", 1.5e9, 2e-3),
        ("loopback+250us", None, 2.5e-4),
    ],
)
def test_a_link_is_its_rate_and_its_delay(name, rate, delay):
    assert LinkConfig(name="x", links=[name]).links == [name]
    assert bits_per_second(name) == (None if rate is None else pytest.approx(rate))
    assert delay_seconds(name) == pytest.approx(delay)


@pytest.mark.parametrize("name", ["fast", "0mbit", "1gbit+2", "1gbit+0ms", "+2ms", "1gbit 2ms", "loopback+2s"])
def test_other_names_are_refused_with_what_would_be_right(name):
    with pytest.raises(ValueError, match=r"must be loopback or a rate such as 300mbit.*\+2ms"):
        LinkConfig(name="x", links=[name])


def test_the_kernel_delays_below_the_rate_where_it_can(netem):
    netem(True)
    assert [queue[0] for queue in links.queues("1gbit+2ms")] == ["tbf", "netem"]
    assert links.queues("loopback+2ms")[0][:3] == ("netem", "delay", "2000us")
    assert links.delayed_by("1gbit+2ms") == "netem" and links.delayed_by("1gbit") == "nothing"
    assert links.launches(["1gbit+2ms", "loopback", "loopback+2ms"]) == [["1gbit+2ms", "loopback+2ms"], ["loopback"]]
    assert isinstance(links.make_links(["loopback+2ms"], 2), links.NamespaceLinks)


def test_elsewhere_the_rate_is_real_and_the_delay_a_model(netem):
    netem(False)
    assert [queue[0] for queue in links.queues("1gbit+2ms")] == ["tbf"]
    assert links.delayed_by("1gbit+2ms") == links.delayed_by("loopback+2ms") == "model"
    assert links.launches(["1gbit+2ms", "loopback", "loopback+2ms"]) == [["1gbit+2ms"], ["loopback", "loopback+2ms"]]
    assert isinstance(links.make_links(["loopback+2ms"], 2), links.Loopback)  # needs no root
    links.check_privilege(["loopback+2ms"])


def test_the_queues_are_nested_by_tc_in_that_order(netem, monkeypatch):
    netem(True)
    asked = []
    monkeypatch.setattr(links, "_run", lambda *command: asked.append(command))
    monkeypatch.setattr(links.subprocess, "run", lambda command, **_: asked.append(tuple(command)))
    joined = links.NamespaceLinks(2)
    joined.set_link("1gbit+2ms")
    mine = [command for command in asked if joined.namespaces[0] in command]
    assert [("del" in one, "1:" in one, "1:1" in one) for one in mine] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    assert "tbf" in mine[1] and "netem" in mine[2]
    asked.clear()
    joined.set_link("1gbit")  # the delay below goes
    assert [("del" in one) for one in asked if joined.namespaces[0] in one] == [True, False]


def test_a_queue_of_another_kind_is_not_replaced_but_made_anew(netem, monkeypatch):
    """As tc has it: a queue that stands can be replaced by one of its own kind alone."""
    netem(True)
    joined = links.NamespaceLinks(2)
    standing: dict[str, str] = {}

    def tc(*command, **_):
        namespace, kind = command[2], next((one for one in ("tbf", "netem") if one in command), None)
        assert kind is None or standing.get(namespace, kind) == kind
        if kind is None:
            standing.pop(namespace, None)
        elif "root" in command:
            standing[namespace] = kind

    monkeypatch.setattr(links, "_run", tc)
    monkeypatch.setattr(links.subprocess, "run", lambda command, **_: tc(*command))
    pure = {"loopback+2ms": "netem", "loopback+1ms": "netem", "1gbit": "tbf"}
    for link, kind in [*pure.items(), *pure.items()]:
        joined.set_link(link)
        assert set(standing.values()) == {kind} and len(standing) == 2


def test_a_machine_without_tbf_is_refused_before_ranks_start(tmp_path, monkeypatch):
    """Programs named ip and tc stand in; tc knows no tbf."""
    (tmp_path / "ip").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "tc").write_text("#!/bin/sh\necho 'Error: Specified qdisc kind is unknown.' >&2; exit 2\n")
    for tool in ("ip", "tc"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MissingRequirementError, match=r"1gbit.*tbf.*Specified qdisc kind is unknown.*link=loopback"):
        links.check_privilege(["1gbit", "loopback"])
    links.offers_netem.cache_clear()
    assert not links.offers_netem()
    links.offers_netem.cache_clear()


@pytest.mark.skipif(not shutil.which("ip") or os.geteuid() != 0, reason="namespaces need root and ip")
def test_a_probe_leaves_no_namespace():
    links.tried("tbf", "rate", "1mbit", "burst", "40000", "limit", "100000")
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert f"{links.PREFIX}{os.getpid()}probe" not in listed
