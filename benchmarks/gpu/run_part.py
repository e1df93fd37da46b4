"""One part in a process of its own: python -m benchmarks.gpu starts it, holds the time, and outlives its faults."""

import argparse
import os
import shutil
import signal
import threading
import time
from pathlib import Path

from benchmarks.gpu.part import Part
from benchmarks.gpu.place import Place, description
from benchmarks.gpu.results import GpuResult
from benchmarks.gpu.settings import Settings, read, tiny
from pipeline import provenance
from pipeline.errors import PipelineError
from pipeline.results import file as result_file

SKIPPED = 3  # exit code: nothing to find here
WATCH_S = 0.5


def run(part: Part, place: Place, settings: Settings) -> GpuResult | str:
    """The part's answer, written to its file, or the line that says why there is none."""
    identity = part.identity(place, settings)
    folder = place.scratch / f"{part.name}-{identity}"
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    answer = part.run(part, place, settings, folder)
    if isinstance(answer, str):
        return answer
    result = GpuResult(
        part=part.name,
        identity=identity,
        device=place.name,
        rehearsal=place.tiny,
        wall_s=round(time.monotonic() - begun, 1),
        figures=answer.figures,
        notes=answer.notes,
        **answer.more,
    )
    result_file.write(place.result_path(part.name), result, provenance.describe(identity, **description(place.device)))
    shutil.rmtree(folder, ignore_errors=True)
    return result


def arguments(parser: argparse.ArgumentParser) -> None:
    """What names a place; of the command and of its parts alike."""
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: with --tiny, a rehearsal")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: shows that the code runs, measures nothing")
    parser.add_argument("--out", type=Path, help="folder of the results; without it results/reference/<device>")


def place_and_settings(args: argparse.Namespace) -> tuple[Place, Settings]:
    settings = read()
    return Place.of(args.device, args.tiny, args.out), tiny(settings) if args.tiny else settings


def main() -> int:
    from benchmarks.gpu.parts import PARTS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.run_part", description=__doc__)
    parser.add_argument("name", choices=[part.name for part in PARTS])
    arguments(parser)
    args = parser.parse_args()
    _end_with_parent()
    place, settings = place_and_settings(args)
    part = next(part for part in PARTS if part.name == args.name)
    # beside the unfinished work: compiling is timed from nothing, and a part that goes on finds its own
    cache = place.scratch / f"{part.name}-{part.identity(place, settings)}" / "inductor"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    try:
        answer = run(part, place, settings)
    except PipelineError as error:
        print(f"{part.name}: {error}", flush=True)
        return error.exit_code
    if isinstance(answer, str):
        print(f"{part.name}: skipped: {answer}", flush=True)
        return SKIPPED
    return 0


def _end_with_parent() -> None:
    """However the command that started this ends, no process of this group stays behind on the GPU."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.killpg(0, signal.SIGKILL)

    if os.getpgrp() == os.getpid():  # a group of its own, as the command starts it
        threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    raise SystemExit(main())
