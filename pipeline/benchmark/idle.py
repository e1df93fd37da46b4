"""Whether the machine was left alone while it measured: what others took of its CPU time, and what its host took.

Linux only (/proc); elsewhere nothing is known, and nothing is said.
"""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
OTHERS_LIMIT = 0.05  # of the cores that ranks use: others may slow them by as much
STEAL_LIMIT = 0.02  # of all CPU time
GLANCE_S = 0.5  # how long the machine is looked at before anything starts


@dataclass(frozen=True)
class Usage:
    """Shares of the machine's CPU time over a stretch; None where the OS does not tell."""

    others: float | None = None
    steal: float | None = None

    def is_busy(self, used_cores: int, cores: int) -> bool | None:
        """Whether ranks on `used_cores` of `cores` were disturbed: others above 5% of those, or steal above 2%.

        None where nothing is known.
        """
        if self.others is None or self.steal is None:
            return None
        return self.others * cores > OTHERS_LIMIT * used_cores or self.steal > STEAL_LIMIT


UNKNOWN = Usage()


def worst(usages: Collection[Usage]) -> Usage:
    """The largest shares of any stretch."""
    others = [one.others for one in usages if one.others is not None]
    steal = [one.steal for one in usages if one.steal is not None]
    return Usage(max(others, default=None), max(steal, default=None))


@dataclass(frozen=True)
class _Ticks:
    total: int
    busy: int  # by processes: interrupts are left out, for those of the ranks' own traffic are among them
    steal: int
    own: int


class Watch:
    """CPU time from now on; `pids` are the measurement's own processes, this one always among them."""

    def __init__(self, pids: Collection[int] = (), proc: Path = PROC) -> None:
        self.pids, self.proc = {*pids, os.getpid()}, proc
        self.before = self._read()

    def usage(self) -> Usage:
        """Since the watch began; of no time at all, nothing is known."""
        before, after = self.before, self._read()
        if before is None or after is None or after.total <= before.total:
            return UNKNOWN
        total = after.total - before.total
        others = (after.busy - before.busy) - (after.own - before.own)
        return Usage(max(0, others) / total, (after.steal - before.steal) / total)

    def _read(self) -> _Ticks | None:
        try:
            first = (self.proc / "stat").read_text().split("\n", 1)[0]
            user, nice, system, idle, iowait, irq, softirq, steal = map(int, first.split()[1:9])
        except (OSError, ValueError):
            return None
        total = user + nice + system + idle + iowait + irq + softirq + steal
        return _Ticks(total, user + nice + system, steal, sum(map(self._own, self.pids)))

    def _own(self, pid: int) -> int:
        """Ticks of one process, its threads included; 0 once it is gone."""
        try:
            fields = (self.proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        except (OSError, ValueError, IndexError):
            return 0


def glance(used_cores: int, cores: int) -> str | None:
    """A line to print where the machine is busy before anything has started."""
    watch = Watch()
    time.sleep(GLANCE_S)
    usage = watch.usage()
    if not usage.is_busy(used_cores, cores):
        return None
    assert usage.others is not None and usage.steal is not None
    return (
        f"this machine is not idle: other processes take {usage.others:.0%} of its CPU time, its host "
        f"{usage.steal:.0%}; times will be too long, and rows measured so are marked busy"
    )
