"""Links of known speed between ranks of one machine: a network namespace a rank, joined by veth, shaped by tc tbf.

A delay is netem's below tbf where the kernel offers it (`delayed_by`), else the ranks' communicators model it.
Needs Linux, root, `ip` and `tc`. Two ranks face each other; more meet on a bridge. Everything made carries the
maker's process id in its name, so that what a killed process left behind is known and removed by the next one.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pipeline.config.link import bits_per_second, delay_seconds
from pipeline.errors import MissingRequirementError, RunError

Delay = Literal["nothing", "netem", "model"]
PREFIX = "krakenlink"
NAMESPACES = Path("/run/netns")
BURST_BYTES = 40_000  # what a link that was idle may send at once: little, or the rate would not be the rate
FRAME_BYTES = 31_000  # each costs timers and interrupts on the cores of ranks; nearer the burst, the rate is missed
TCP_SETTINGS = {
    "tcp_congestion_control": "reno",  # nothing is ever lost here; bbr would pace with timers and pause to probe
    "tcp_slow_start_after_idle": "0",  # the link is idle while ranks compute
}
QUEUE_BYTES = 32_000_000  # never drop: TCP backs off on loss, and the link would be slower than it says


PACKETS = 10_000  # that may be under way at once: never drop here either


def check_privilege(links: list[str]) -> None:
    """Raise MissingRequirementError where a rate is asked for that this process may not, or cannot, set up."""
    shaped = [link for link in links if bits_per_second(link) is not None]
    if not shaped:
        return
    what = f"link.links={shaped}: links of a chosen speed need"
    if sys.platform != "linux":
        raise MissingRequirementError(f"{what} Linux network namespaces; link=loopback runs here")
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise MissingRequirementError(f"{what} the program {missing[0]} (package iproute2); link=loopback runs here")
    if os.geteuid() != 0:
        raise MissingRequirementError(f"{what} root, to make network namespaces; run as root, or use link=loopback")
    refused = tried(*_tbf(1e6))
    if refused is not None:
        raise MissingRequirementError(
            f"{what} network namespaces and `tc tbf`, which this machine refuses ({refused}); use link=loopback"
        )


def tried(*qdisc: str) -> str | None:
    """What this machine says against such a queue in a namespace; None: nothing, it can be had."""
    probe = f"{PREFIX}{os.getpid()}probe"
    commands = (
        ("ip", "netns", "add", probe),
        ("ip", "-n", probe, "link", "set", "lo", "up"),
        ("tc", "-n", probe, "qdisc", "replace", "dev", "lo", "root", *qdisc),
    )
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                return f"`{' '.join(command)}`: {done.stderr.strip() or done.stdout.strip()}"
    except OSError as error:
        return str(error)
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None


@functools.cache
def offers_netem() -> bool:
    """Whether this kernel delays what a link carries: tried once, before any rank starts."""
    return sys.platform == "linux" and os.geteuid() == 0 and tried(*_netem(1e-3)) is None


def delayed_by(link: str) -> Delay:
    """What delays this link here: netem in the kernel, or a model on top of what the link really carries."""
    if not delay_seconds(link):
        return "nothing"
    return "netem" if offers_netem() else "model"


def needs_namespaces(link: str) -> bool:
    return bits_per_second(link) is not None or delayed_by(link) == "netem"


def _tbf(rate: float) -> tuple[str, ...]:
    return ("tbf", "rate", f"{rate:.0f}bit", "burst", str(BURST_BYTES), "limit", str(QUEUE_BYTES))


def _netem(delay_s: float) -> tuple[str, ...]:
    return ("netem", "delay", f"{delay_s * 1e6:.0f}us", "limit", str(PACKETS))


def queues(link: str) -> list[tuple[str, ...]]:
    """The queues of a link's sending end, each below the one before, as `tc` takes them."""
    rate, delay_s = bits_per_second(link), delay_seconds(link)
    found = [] if rate is None else [_tbf(rate)]
    return [*found, _netem(delay_s)] if delayed_by(link) == "netem" else found


def remove_stale() -> list[str]:
    """Delete namespaces whose maker is dead; returns their names."""
    removed = []
    for name in _ours():
        match = re.match(rf"{PREFIX}(\d+)", name)
        if match and not Path("/proc", match[1]).exists():
            _delete(name)
            removed.append(name)
    return removed


def _ours() -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"{PREFIX}*")) if NAMESPACES.is_dir() else []


def _delete(namespace: str) -> None:
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"setting up the links failed at `{' '.join(command)}`: {done.stderr.strip()}")


class Loopback:
    """No namespaces, no limit."""

    def __init__(self, tp_size: int) -> None:
        self.interfaces = ["lo"] * tp_size

    def prefix(self, rank: int) -> list[str]:
        """What stands before a rank's command line."""
        return []

    def set_link(self, link: str) -> None:
        """Nothing to set: one speed only."""

    def __enter__(self) -> "Loopback":
        return self

    def __exit__(self, *_: object) -> None:
        return


class NamespaceLinks:
    """A namespace a rank; `set_link` changes the speed of all links while ranks run."""

    def __init__(self, tp_size: int) -> None:
        self.tp_size = tp_size
        self.base = f"{PREFIX}{os.getpid()}"
        self.namespaces = [f"{self.base}r{rank}" for rank in range(tp_size)]
        self.interfaces = [f"veth{rank}" for rank in range(tp_size)]
        self.kinds: list[str] = []  # of the queues that stand, each below the one before

    def __enter__(self) -> "NamespaceLinks":
        remove_stale()
        atexit.register(self.remove)
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
        atexit.unregister(self.remove)

    def remove(self) -> None:
        """Delete the namespaces; the veths in them go with them."""
        for name in _ours():
            if name.startswith(f"{self.base}r") or name == f"{self.base}hub":
                _delete(name)

    def prefix(self, rank: int) -> list[str]:
        return ["ip", "netns", "exec", self.namespaces[rank]]

    def set_link(self, link: str) -> None:
        """Limit, and where the kernel can delay, what every rank sends; RunError where tc refuses."""
        wanted = queues(link)
        if not wanted:
            raise ValueError(f"{link} limits nothing; loopback needs a launch of its own")
        kinds = [queue[0] for queue in wanted]
        for namespace, interface in zip(self.namespaces, self.interfaces, strict=True):
            change = ("tc", "-n", namespace, "qdisc", "replace", "dev", interface)
            if kinds != self.kinds or len(kinds) > 1:  # replacing keeps a queue below, and refuses one of another kind
                subprocess.run(["tc", "-n", namespace, "qdisc", "del", "dev", interface, "root"], capture_output=True)
            _run(*change, "root", "handle", "1:", *wanted[0])
            if len(wanted) > 1:
                _run(*change, "parent", "1:1", "handle", "10:", *wanted[1])
        self.kinds = kinds

    def _make(self) -> None:
        for namespace in self.namespaces:
            _run("ip", "netns", "add", namespace)
            _run("ip", "-n", namespace, "link", "set", "lo", "up")
        if self.tp_size == 2:
            first, second = self.namespaces
            _run(
                *("ip", "-n", first, "link", "add", "veth0", "mtu", str(FRAME_BYTES)),
                *("type", "veth", "peer", "name", "veth1", "mtu", str(FRAME_BYTES), "netns", second),
            )
        else:
            self._make_hub()
        for rank, (namespace, interface) in enumerate(zip(self.namespaces, self.interfaces, strict=True)):
            _run("ip", "-n", namespace, "addr", "add", f"10.213.0.{rank + 1}/24", "dev", interface)
            _run("ip", "-n", namespace, "link", "set", interface, "gso_max_size", str(FRAME_BYTES), "up")
            for key, value in TCP_SETTINGS.items():
                _run("ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}")

    def _make_hub(self) -> None:
        hub = f"{self.base}hub"
        _run("ip", "netns", "add", hub)
        _run("ip", "-n", hub, "link", "add", "hub", "mtu", str(FRAME_BYTES), "type", "bridge")
        _run("ip", "-n", hub, "link", "set", "hub", "up")
        for rank, (namespace, interface) in enumerate(zip(self.namespaces, self.interfaces, strict=True)):
            port = f"port{rank}"
            _run(
                *("ip", "-n", namespace, "link", "add", interface, "mtu", str(FRAME_BYTES)),
                *("type", "veth", "peer", "name", port, "mtu", str(FRAME_BYTES), "netns", hub),
            )
            _run("ip", "-n", hub, "link", "set", port, "master", "hub")
            _run("ip", "-n", hub, "link", "set", port, "up")


def make_links(links: list[str], tp_size: int) -> Loopback | NamespaceLinks:
    """The links of one launch: loopback alone, or namespaces that all the given rates use one after the other."""
    return NamespaceLinks(tp_size) if any(map(needs_namespaces, links)) else Loopback(tp_size)


def launches(links: list[str]) -> list[list[str]]:
    """Links grouped by what one launch of ranks can serve: all in namespaces together, loopback by itself."""
    shaped = [link for link in links if needs_namespaces(link)]
    return [group for group in (shaped, [link for link in links if link not in shaped]) if group]
