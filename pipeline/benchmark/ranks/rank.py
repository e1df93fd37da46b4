"""One rank of the benchmark: python -m pipeline.benchmark.ranks.rank SPEC RANK.

Commands come in on stdin, answers go out on stdout, one JSON line each; whatever else is printed goes to stderr.
Ends when stdin closes, so that no rank outlives the process that launched it.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from pipeline.benchmark.ranks.peers import Peers
    from pipeline.benchmark.ranks.spec import RankSpec

PR_SET_PDEATHSIG = 1


class Worker(Protocol):
    """What carries out a rank's commands: a method each, `steps` counting forwards for the heartbeat."""

    steps: int
    peers: "Peers"


def main(arguments: list[str], make_worker: "Callable[[RankSpec, int], Worker] | None" = None) -> int:
    """Serve commands until stdin closes; `make_worker` is RankWorker unless another is given."""
    spec_path, rank = Path(arguments[0]), int(arguments[1])
    _die_with_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries that print must not break the answers

    from pipeline.benchmark.ranks.spec import RankSpec
    from pipeline.benchmark.ranks.worker import RankWorker

    worker = (make_worker or RankWorker)(RankSpec.read(spec_path), rank)
    channel = Channel(answers, rank)
    channel.send({"event": "ready"})
    threading.Thread(target=channel.beat, args=(worker,), daemon=True).start()
    for line in sys.stdin:
        command = json.loads(line)
        identity, do = command.pop("id"), command.pop("do")
        channel.send({"event": "answer", "id": identity, "data": getattr(worker, do)(**command)})
    worker.peers.close()
    return 0


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent dies, however it dies (Linux only)."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        return


class Channel:
    """The line to the launcher; the heartbeat thread and the main thread share it."""

    def __init__(self, stream: TextIO, rank: int) -> None:
        self.stream = stream
        self.rank = rank
        self.lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.stream.write(json.dumps({"rank": self.rank, **message}) + "\n")
            self.stream.flush()

    def beat(self, worker: "Worker") -> None:
        """Say every second how many forwards are done: the launcher tells a slow rank from a hung one by it."""
        from pipeline.benchmark.ranks.spec import HEARTBEAT_S

        pause = threading.Event()
        while not pause.wait(HEARTBEAT_S):
            try:
                self.send({"event": "alive", "steps": worker.steps})
            except (OSError, ValueError):  # the launcher is gone
                return


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
