"""Starting ranks, talking to them, noticing that one died or hangs, and leaving nothing behind."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pipeline.benchmark.ranks.links import Loopback, NamespaceLinks
from pipeline.benchmark.ranks.spec import HEARTBEAT_S, RankSpec
from pipeline.errors import RunError

POLL_S = 0.1
GRACE_S = 0.5  # when one rank dies its peers fail too: wait this long to see which went first
SHUTDOWN_S = 5.0
START_S = 120.0  # importing torch on a busy machine is slow, not hung
LOG_LINES = 12
# glibc would hand every activation's pages back to the kernel and fault them in again: all architectures pay for it
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648"}


class RankGroup:
    """tp_size rank processes, alive for as long as the `with` block; one launch serves a whole grid."""

    module = "pipeline.benchmark.ranks.rank"  # what each process runs

    def __init__(self, spec: RankSpec, links: Loopback | NamespaceLinks, timeout_s: float) -> None:
        self.spec, self.links, self.timeout_s = spec, links, timeout_s
        self.processes: list[subprocess.Popen[str]] = []
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self._steps = [-1] * spec.tp_size
        self._heard = [0.0] * spec.tp_size
        self._progress = 0.0
        self._commands = 0

    def __enter__(self) -> "RankGroup":
        try:
            self._start()
            self._collect("ready", None, max(START_S, self.timeout_s))
        except BaseException:
            self._stop(kill=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop(kill=kind is not None)

    def command(self, do: str, **arguments: Any) -> list[Any]:
        """Have every rank do one thing; returns the answers by rank. RunError where a rank dies or hangs."""
        self._commands += 1
        line = json.dumps({"id": self._commands, "do": do, **arguments}) + "\n"
        for rank, process in enumerate(self.processes):
            assert process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
            except (BrokenPipeError, OSError):
                time.sleep(POLL_S)
                self._raise_if_dead()
                raise RunError(f"rank {rank} does not read its commands any more\n{self._log(rank)}") from None
        return self._collect("answer", self._commands, self.timeout_s)

    def _start(self) -> None:
        folder = Path(self._folder.name)
        spec_path = folder / "spec.json"
        self.spec.write(spec_path)
        threads = str(self.spec.threads)
        environment = os.environ | KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        root = str(Path(__file__).resolve().parents[3])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        for rank in range(self.spec.tp_size):
            with (folder / f"rank{rank}.log").open("w") as log:
                process = subprocess.Popen(
                    [*self.links.prefix(rank), sys.executable, "-m", self.module, spec_path, str(rank)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                    start_new_session=True,
                )
            self.processes.append(process)
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with contextlib.suppress(json.JSONDecodeError):  # a line cut off by a kill
                self._messages.put(json.loads(line))

    def _collect(self, event: str, identity: int | None, timeout_s: float) -> list[Any]:
        """One message of this kind from every rank, as long as some rank makes progress every `timeout_s`."""
        answers: dict[int, Any] = {}
        self._progress = time.monotonic()
        self._heard = [self._progress] * self.spec.tp_size
        while len(answers) < self.spec.tp_size:
            try:
                message = self._messages.get(timeout=POLL_S)
            except queue.Empty:
                self._raise_if_dead()
                self._raise_if_hung(set(answers), timeout_s)
                continue
            rank = message["rank"]
            self._heard[rank] = time.monotonic()
            if message["event"] == "alive" and message["steps"] != self._steps[rank]:
                self._steps[rank], self._progress = message["steps"], time.monotonic()
            if message["event"] == event and message.get("id") == identity:
                answers[rank] = message.get("data")
                self._progress = time.monotonic()
            elif message["event"] == "alive":
                self._raise_if_dead()
                self._raise_if_hung(set(answers), timeout_s)
        return [answers[rank] for rank in range(self.spec.tp_size)]

    def _raise_if_dead(self) -> None:
        if all(process.poll() is None for process in self.processes):
            return
        first = [rank for rank, process in enumerate(self.processes) if process.returncode is not None]
        time.sleep(GRACE_S)
        killed = [rank for rank, process in enumerate(self.processes) if (process.poll() or 0) < 0]
        rank = (killed or first)[0]
        raise RunError(f"rank {rank} died ({_status(self.processes[rank].returncode)})\n{self._log(rank)}")

    def _raise_if_hung(self, answered: set[int], timeout_s: float) -> None:
        now = time.monotonic()
        if now - self._progress < timeout_s:
            return
        waiting = [rank for rank in range(self.spec.tp_size) if rank not in answered]
        silent = [rank for rank in waiting if now - self._heard[rank] > 3 * HEARTBEAT_S]
        rank = silent[0] if silent else min(waiting, key=lambda rank: self._steps[rank])
        seen = "sends no heartbeat" if silent else "is alive but gets no further"
        raise RunError(
            f"rank {rank} hangs: no progress for {timeout_s:g} s (benchmark.rank_timeout_s), it {seen}; "
            f"it was ended\n{self._log(rank)}"
        )

    def _log(self, rank: int) -> str:
        """The last lines that a rank wrote."""
        try:
            lines = Path(self._folder.name, f"rank{rank}.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            lines = []
        return "\n".join([f"last lines of rank {rank}'s log:", *(f"  {line}" for line in lines or ["(nothing)"])])

    def _stop(self, kill: bool) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                if process.stdin is not None and not kill:
                    process.stdin.close()
        deadline = time.monotonic() + (0 if kill else SHUTDOWN_S)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self.processes.clear()
        self._folder.cleanup()


def _status(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind like an exception, so that ranks and namespaces are cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
