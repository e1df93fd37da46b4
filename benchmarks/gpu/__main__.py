"""What only a GPU can show, in parts of at most 8 minutes, in order of worth: docs/gpu.md.

make gpu                                     # all parts that have no answer yet
python -m benchmarks.gpu --list              # the parts, and which have one
python -m benchmarks.gpu --part train_kraken --minutes 9
python -m benchmarks.gpu --device cpu --tiny --out /tmp/rehearsal    # every line of it, without a GPU
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.gpu import requirements

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu.part import Part
    from benchmarks.gpu.place import Place
    from benchmarks.gpu.settings import Settings


def main() -> int:
    fault = requirements.fault()
    if fault:
        return _refused(fault)
    from benchmarks.gpu import run_part, table
    from benchmarks.gpu.parts import PARTS
    from benchmarks.gpu.place import REFERENCE
    from pipeline import files
    from pipeline.errors import OutputError

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]
    parser.add_argument("--part", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--list", action="store_true", help="show the parts and end")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after so many; what is unfinished goes on next time"
    )
    parser.add_argument("--docs", action="store_true", help="write the figures of results/reference into docs/gpu.md")
    run_part.arguments(parser)
    args = parser.parse_args()
    if args.docs:
        table.update_docs(PARTS)
        return 0
    if args.tiny != (args.device == "cpu"):
        return _refused("--tiny is a rehearsal on --device cpu, and nothing else runs there")
    if args.tiny and (args.out is None or args.out.resolve().is_relative_to(REFERENCE)):
        return _refused("a rehearsal measures nothing: --out must name a folder outside results/reference")
    if args.device == "cuda" and (fault := requirements.gpu_fault()):
        if not args.list:
            return _refused(fault)
        print("\n".join(f"{part.name:<15} about {part.minutes:g} min  {part.question}" for part in PARTS))
        return 0
    place, settings = run_part.place_and_settings(args)
    try:
        for folder in (place.results, place.scratch) if args.out or not args.list else ():
            files.check_writable(folder, hint="--out")
    except OutputError as error:
        return _refused(str(error))
    wanted = [part for part in PARTS if not args.part or part.name in args.part]
    if args.list:
        for part in wanted:
            state = "done" if part.result(place, settings) else "to do"
            print(f"{part.name:<15} {state:<6} about {part.minutes:g} min  {part.question}")
        return 0
    try:
        unanswered = _run_all(wanted, place, settings, args.out, args.minutes)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    found = {part.name: result for part in wanted if (result := part.result(place, settings))}
    print(f"\n{place.name}\n{table.text(wanted, found)}\nresults: {place.results}")
    return 1 if unanswered else 0


def _run_all(
    parts: "Sequence[Part]", place: "Place", settings: "Settings", out: "Path | None", minutes: float
) -> list[str]:
    """Names of the parts that failed, did not end or were left out; one that fails keeps no other from running."""
    from benchmarks.gpu.part import LIMIT_S
    from benchmarks.gpu.run_part import SKIPPED

    end = time.monotonic() + 60 * minutes
    unanswered = []
    for part in parts:
        if part.result(place, settings):
            print(f"{part.name}: there already: {place.result_path(part.name)}", flush=True)
            continue
        left_s = end - time.monotonic()
        if left_s < 60 * min(part.minutes, 1):
            print(f"{part.name}: left out, --minutes are over", flush=True)
            unanswered.append(part.name)
            continue
        print(f"\n{part.name}: {part.question} (about {part.minutes:g} min on an H100)", flush=True)
        code = _run_one(part.name, place, out, min(LIMIT_S, left_s))
        if code is None:
            print(f"{part.name}: out of time; the same command goes on where it was", flush=True)
        elif code not in (0, SKIPPED):
            print(f"{part.name}: failed with exit code {code}", flush=True)
        if code not in (0, SKIPPED):
            unanswered.append(part.name)
    return unanswered


def _run_one(name: str, place: "Place", out: "Path | None", limit_s: float) -> int | None:
    """Exit code of one part in a process group of its own, or None where its time was up."""
    command = [sys.executable, "-m", "benchmarks.gpu.run_part", name, "--device", place.device.type]
    command += ["--tiny"] if place.tiny else []
    command += ["--out", str(out)] if out else []
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:  # also where the user interrupts
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _refused(fault: str) -> int:
    print(f"error: {fault}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
