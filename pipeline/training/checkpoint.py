"""Checkpoints of an unfinished run: safetensors and JSON, one folder a step, each rank's part in files of its own.

A part is what one rank of a copy holds, or with FSDP one worker's piece of that; whoever loads a checkpoint puts the
parts together for its own layout, which may be another one.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline import files
from pipeline.errors import CheckpointError, OutputError
from pipeline.models.shard import WITH_FIRST, rule_of, shard, unshard
from pipeline.training.parallel import local, shard_dim
from pipeline.training.state import MOMENTS, TrainingState

KEEP = 2
STATE = "state.json"
KINDS = ("model", "optimizer")
NAME = re.compile("step-[0-9]{9}")
UNREADABLE = (KeyError, TypeError, AttributeError, ValueError)  # how JSON that is damaged, or other JSON, shows itself
POLL_S = 0.05


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a state, held still while it is written."""

    body: dict[str, Any]  # what state.json says, but for the files' hashes
    part: str  # which of body["layout"]'s parts this is
    tensors: dict[str, dict[str, Tensor]]  # by KINDS


def snapshot(state: TrainingState, copied: bool = False, **more: Any) -> Snapshot:
    """This rank's part of `state` in host memory; `copied` where training goes on meanwhile. `more` is kept too."""
    layout = state.layout
    dims = {name: shard_dim(tuple(one.shape), layout.shards) for name, one in state.model.named_parameters()}
    body = {
        "step": state.step,
        "skipped": state.skipped,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "fingerprint": state.fingerprint,
        "model": state.model.config.identity(),
        "validation": list(state.validation),
        "layout": {
            "tp_size": layout.tp_size,
            "shards": layout.shards,
            "shard_dims": dims if layout.shards > 1 else {},
        },
        **more,
    }
    part = _part(layout.placement.rank, layout.dp_rank if layout.fsdp else 0)
    tensors = {"model": state.named_weights(), "optimizer": state.named_moments()}
    return Snapshot(body, part, {kind: _on_cpu(found, copied) for kind, found in tensors.items()})


def write_part(run_folder: Path, taken: Snapshot) -> None:
    """Write one rank's files where `commit` finds them; raises OutputError where they cannot be, as on a full disk."""
    folder = _unfinished(run_folder, taken.body["step"])
    paths = [folder / _file(kind, taken.part) for kind in KINDS]
    try:
        with _telling(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path, kind in zip(paths, KINDS, strict=True):
                save_file(taken.tensors[kind], path)
                files.flush(path)
            files.write_json(folder / f"{taken.part}.json", {path.name: files.sha256_of(path) for path in paths})
    except OutputError:
        for path in paths:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others' parts may be there
            folder.rmdir()
        raise


def commit(
    run_folder: Path,
    taken: Snapshot,
    keep: int = KEEP,
    milestones: Collection[int] = (),
    abandoned: Callable[[], bool] = lambda: False,
) -> Path | None:
    """Once all parts are written, make them `checkpoints/step-…`, on the disk whole or not at all, and drop older ones.

    The `keep` newest stay, and for good those of steps that are `milestones`, or were when they were written. None
    where `abandoned` says, while waiting for another rank's part, that none will come. Raises OutputError where nothing
    can be written; what was there stays.
    """
    step, layout = taken.body["step"], taken.body["layout"]
    temporary, folder = _unfinished(run_folder, step), folder_of(run_folder, step)
    parts = _parts(layout)
    while not all((temporary / f"{part}.json").exists() for part in parts):
        if abandoned():
            return None
        time.sleep(POLL_S)
    with _telling(folder):
        hashes: dict[str, str] = {}
        for part in parts:
            hashes |= files.read_json(temporary / f"{part}.json")
            (temporary / f"{part}.json").unlink()
        milestone = step in milestones or _is_milestone(folder)
        files.write_json(temporary / STATE, {**taken.body, "milestone": milestone, "sha256": hashes})
        files.flush(temporary / STATE)
        if folder.exists():  # damaged, or this step would not have been taken again
            shutil.rmtree(folder)
        temporary.replace(folder)
        files.flush(folder.parent)
        usable = [one for one in checkpoints(run_folder) if step_of(one) <= step]  # later ones were passed over
        for old in usable[:-keep]:
            if step_of(old) not in milestones and not _is_milestone(old):
                shutil.rmtree(old)
    return folder


def save(run_folder: Path, state: TrainingState) -> Path:
    """Write the state of a run that one process trains, at once."""
    taken = snapshot(state)
    write_part(run_folder, taken)
    folder = commit(run_folder, taken)
    assert folder is not None  # there is no other rank to wait for
    return folder


def checkpoints(run_folder: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(one for one in (run_folder / "checkpoints").glob("step-*") if NAME.fullmatch(one.name))


def folder_of(run_folder: Path, step: int) -> Path:
    return run_folder / "checkpoints" / f"step-{step:09d}"


def step_of(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def hashes_of(body: dict[str, Any]) -> dict[str, str]:
    """SHA-256 by file, as state.json says; raises one of UNREADABLE where one of the files has none."""
    hashes = dict(body["sha256"])
    for part in _parts(body["layout"]):
        for kind in KINDS:
            if _file(kind, part) not in hashes:
                raise ValueError(f"{STATE} has no SHA-256 of {_file(kind, part)}")
    return hashes


def sweep(run_folder: Path) -> None:
    """Remove what a killed run left half written; for the holder of the run folder's lock."""
    for left in (run_folder / "checkpoints").glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def set_aside_damaged(run_folder: Path, step: int) -> None:
    """Rename what is newer than `step`, the newest that is whole, to damaged-…: those steps will be taken again."""
    for folder in checkpoints(run_folder):
        if step_of(folder) > step:
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)


def restore_latest(run_folder: Path, state: TrainingState, say: Callable[[str], None] = lambda line: None) -> int:
    """Load the newest checkpoint that is whole into `state`; returns its step, 0 where there is none.

    A damaged one is passed over in favour of the one before, and said. Raises CheckpointError for one of another run,
    and where all are damaged.
    """
    damaged: list[str] = []
    for folder in reversed(checkpoints(run_folder)):
        try:
            _verify(folder)
            _load(folder, state)
        except _DamagedError as error:
            damaged.append(str(error))
            continue
        for fault in damaged:
            say(f"{fault}; going on from step {state.step}")
        return state.step
    if damaged:
        raise CheckpointError(f"{'; '.join(damaged)}; no other is left: delete {run_folder} to start over")
    return 0


def restore(run_folder: Path, step: int, state: TrainingState) -> None:
    """Load the checkpoint of this very step; raises CheckpointError where it is not there whole."""
    try:
        _load(folder_of(run_folder, step), state)
    except _DamagedError as error:
        raise CheckpointError(str(error)) from None


class _DamagedError(Exception):
    """A checkpoint that cannot be read, or whose bytes are not those that were written."""


def _unfinished(run_folder: Path, step: int) -> Path:
    return run_folder / "checkpoints" / f".step-{step:09d}"


def _part(tp_rank: int, piece: int) -> str:
    return f"{tp_rank}-{piece}"


def _parts(layout: dict[str, Any]) -> list[str]:
    return [_part(rank, piece) for rank in range(layout["tp_size"]) for piece in range(layout["shards"])]


def _file(kind: str, part: str) -> str:
    return f"{kind}-{part}.safetensors"


def _is_milestone(folder: Path) -> bool:
    try:
        return bool(files.read_json(folder / STATE).get("milestone"))
    except (FileNotFoundError, *UNREADABLE):  # no run can go on from it
        return False


@contextlib.contextmanager
def _telling(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    except SafetensorError as error:  # it wraps the system's own error
        raise OutputError(f"cannot write {folder}: {error}") from error


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # the device's fault, though a RuntimeError too
        raise
    except (OSError, SafetensorError, RuntimeError, *UNREADABLE) as error:
        raise _DamagedError(f"{folder} is damaged ({(str(error) or repr(error)).splitlines()[0]})") from None


def _verify(folder: Path) -> None:
    with _reading(folder):
        for name, expected in hashes_of(files.read_json(folder / STATE)).items():
            if files.sha256_of(folder / name) != expected:
                raise _DamagedError(f"{folder} is damaged ({name} has other bytes than were written)")


def _load(folder: Path, state: TrainingState) -> None:
    with _reading(folder), contextlib.ExitStack() as stack:
        body = files.read_json(folder / STATE)
        if body["fingerprint"] != state.fingerprint:
            raise CheckpointError(
                f"{folder} belongs to another run: fingerprint {body['fingerprint']}, not {state.fingerprint}"
            )
        if body["step"] != step_of(folder):
            raise _DamagedError(f"{folder} is damaged ({STATE} is of step {body['step']})")
        parts = _Parts(folder, body["layout"], state, stack)
        with torch.no_grad():
            for name, target in state.named_weights().items():
                target.copy_(parts.read("model", name, name))
        state.step, state.skipped = body["step"], body["skipped"]
        state.tokens, state.seconds = body["tokens"], body["seconds"]
        state.validation = body["validation"]
        state.restore_moments(_Moments(parts))


class _Parts:
    """A checkpoint's tensors as the rank that reads them needs them."""

    def __init__(self, folder: Path, layout: dict[str, Any], state: TrainingState, stack: contextlib.ExitStack) -> None:
        self._folder, self._state, self._stack = folder, state, stack
        self._tp_size, self._shards, self._dims = layout["tp_size"], layout["shards"], layout["shard_dims"]
        self._shapes = {name: one.shape for name, one in state.named_weights().items()}
        self._open: dict[str, Any] = {}

    def read(self, kind: str, key: str, name: str) -> Tensor:
        """The tensor `key`, which is of the shape of the parameter `name`: this rank's part, or its piece of it."""
        config, layout = self._state.model.config, self._state.layout
        if self._tp_size == layout.tp_size:
            part = self._part(kind, key, name, layout.placement.rank)
        else:
            with_first = self._tp_size > 1 and rule_of(name, config) in WITH_FIRST
            ranks = [0] if with_first else range(self._tp_size)
            whole = unshard(name, [self._part(kind, key, name, rank) for rank in ranks], config)
            part = shard(name, whole, tuple(whole.shape), config, layout.placement)
        if layout.shards > 1:
            pieces = part.chunk(layout.shards, shard_dim(tuple(part.shape), layout.shards))
            part = pieces[layout.dp_rank] if layout.dp_rank < len(pieces) else part[:0]
        if part.shape != self._shapes[name]:
            raise KeyError(f"{key} has shape {tuple(part.shape)}, not {tuple(self._shapes[name])}")
        return part

    def _part(self, kind: str, key: str, name: str, tp_rank: int) -> Tensor:
        pieces = [self._file(_file(kind, _part(tp_rank, one))).get_tensor(key) for one in range(self._shards)]
        return pieces[0] if self._shards == 1 else torch.cat(pieces, dim=self._dims[name])

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = self._stack.enter_context(safe_open(self._folder / name, framework="pt"))
        return self._open[name]


class _Moments(dict[str, Tensor]):
    """Moments by name, read when they are asked for."""

    def __init__(self, parts: _Parts) -> None:
        super().__init__()
        self._parts = parts

    def __missing__(self, key: str) -> Tensor:
        moment, _, name = key.partition(".")
        assert moment in MOMENTS
        return self._parts.read("optimizer", key, name)


def _on_cpu(tensors: dict[str, Tensor], copied: bool) -> dict[str, Tensor]:
    found = {name: local(tensor).detach().contiguous() for name, tensor in tensors.items()}
    return {name: one.clone() if copied and one.device.type == "cpu" else one.cpu() for name, one in found.items()}
