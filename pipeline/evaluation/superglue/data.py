"""SuperGLUE from the set shipped here, from a folder in its own JSONL form, or from the hub."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config import Config
from pipeline.errors import DataError, MissingRequirementError
from pipeline.evaluation.superglue.tasks import Example, MalformedError, SuperGlueTask
from pipeline.provenance import fingerprint

SHIPPED = Path(__file__).parent / "shipped"
HUB_ID = "aps/super_glue"
SPLITS = {"train": ("train.jsonl",), "validation": ("val.jsonl", "dev32.jsonl")}
MEND = (
    "the folder must hold SuperGLUE's own files, <Task>/train.jsonl and <Task>/val.jsonl "
    "for Task in BoolQ, RTE, CB, COPA, ReCoRD, WiC, WSC, MultiRC"
)
FAULTS_SHOWN = 12

Label = Literal["full", "partial", "own", "shipped"]
MEANING: dict[Label, str] = {
    "full": "the whole validation set: comparable with published values",
    "partial": "a part of SuperGLUE: not comparable with published values",
    "own": "data of your own in SuperGLUE's form: not comparable with published values",
    "shipped": "the small set shipped with this project: not comparable with published values",
}


@dataclass(frozen=True)
class TaskData:
    """One task's examples in the hub's schema, and how far its scores compare with published ones."""

    task: SuperGlueTask
    train: list[Example]
    validation: list[Example]
    label: Label
    notes: tuple[str, ...]

    def key(self) -> str:
        """A name for these very examples."""
        return fingerprint(self.train, self.validation)


def load(tasks: Sequence[SuperGlueTask], data_dir: str | None, n_shot: int) -> list[TaskData]:
    """Examples of each task. Raises DataError naming every missing or malformed file, MissingRequirementError
    where the hub is wanted and cannot be reached."""
    if data_dir == "hub":
        return [_from_hub(task, n_shot) for task in tasks]
    folder = SHIPPED if data_dir is None else Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"evaluation.data_dir={data_dir}: no such folder; {MEND}")
    faults: list[str] = []
    found = [_from_folder(task, folder, n_shot, data_dir is None, faults) for task in tasks]
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:FAULTS_SHOWN])
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise DataError(f"evaluation.data_dir={data_dir}: {len(faults)} faults:\n{shown}{more}\n{MEND}")
    return found


def missing_data(config: Config, online: Callable[[], bool]) -> list[str]:
    """What is lacking of the task data, without fetching or reading anything."""
    wanted = config.evaluation.data_dir
    if wanted is None:
        return []
    if wanted != "hub":
        return [] if Path(wanted).is_dir() else [f"evaluation.data_dir={wanted}: no such folder; {MEND}"]
    import datasets

    if Path(datasets.config.HF_DATASETS_CACHE, HUB_ID.replace("/", "___")).is_dir() or online():
        return []
    return [
        f"{HUB_ID}: not on this disk, and the hub cannot be reached. Fetch it where there is a network (hf download "
        f"--repo-type dataset {HUB_ID}), or set evaluation.data_dir=FOLDER; {MEND}"
    ]


def overall(data: Sequence[TaskData]) -> Label:
    """The label of a mean over tasks: that of its least comparable task."""
    order: tuple[Label, ...] = ("shipped", "own", "partial", "full")
    return min((item.label for item in data), key=order.index)


def _from_folder(task: SuperGlueTask, folder: Path, n_shot: int, shipped: bool, faults: list[str]) -> TaskData:
    validation, source = _read_split(task, folder, "validation", faults)
    train, _ = _read_split(task, folder, "train", faults) if n_shot else ([], "")
    if n_shot and train and len(train) <= n_shot:
        faults.append(f"{task.title}/train.jsonl: {len(train)} examples, {n_shot} shots need at least {n_shot + 1}")
    if shipped:
        return TaskData(task, train, validation, "shipped", ())
    label, notes = _compare(task, len(train), len(validation), n_shot, source)
    return TaskData(task, train, validation, label, notes)


def _compare(
    task: SuperGlueTask, train: int, validation: int, n_shot: int, source: str
) -> tuple[Label, tuple[str, ...]]:
    """What the sizes say; SuperGLUE's own are known."""
    notes = []
    label: Label = "full"
    if source == "dev32.jsonl":
        label = "partial"
        notes.append(f"{validation} of {task.validation_size} validation examples (no val.jsonl, dev32.jsonl instead)")
    elif validation != task.validation_size:
        label = "own"
        notes.append(f"{validation} validation examples, SuperGLUE has {task.validation_size}")
    if n_shot and train != task.train_size:
        label = "partial" if label == "full" else label
        notes.append(f"worked examples drawn from {train}, SuperGLUE has {task.train_size}")
    return label, tuple(notes)


def _read_split(task: SuperGlueTask, folder: Path, split: str, faults: list[str]) -> tuple[list[Example], str]:
    """A split's examples and the file they came from; faults are added to the list."""
    names = SPLITS[split]
    path = next((folder / task.title / name for name in names if (folder / task.title / name).is_file()), None)
    if path is None:
        faults.append(f"{folder / task.title / names[0]}: missing")
        return [], names[0]
    examples: list[Example] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read as UTF-8 text ({error})")
        return [], path.name
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples += task.convert(json.loads(line))
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{number}: not JSON ({error.msg})")
        except MalformedError as error:
            faults.append(f"{path}:{number}: {error}")
    if not examples and not any(str(path) in fault for fault in faults):
        faults.append(f"{path}: empty")
    return examples, path.name


def _from_hub(task: SuperGlueTask, n_shot: int) -> TaskData:
    splits: dict[str, list[Any]] = {}
    try:
        import datasets

        loaded = datasets.load_dataset(HUB_ID, task.hub_name)
        splits = {name: [dict(row) for row in loaded[name]] for name in ("train", "validation")}
    except Exception as error:  # the hub's client raises many kinds
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise MissingRequirementError(
            f"evaluation.data_dir=hub: {HUB_ID} ({task.hub_name}) is neither in the local cache nor to be had from the "
            f"hub{offline}: {type(error).__name__}. Go online, or fetch SuperGLUE's files and set "
            f"evaluation.data_dir=FOLDER; {MEND}"
        ) from error
    label, notes = _compare(task, len(splits["train"]), len(splits["validation"]), n_shot, "hub")
    return TaskData(task, splits["train"] if n_shot else [], splits["validation"], label, notes)
