"""SuperGLUE's own JSONL into the hub's schema; what is wrong with a folder is named, all of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, MissingRequirementError
from pipeline.evaluation.superglue import data as superglue_data
from pipeline.evaluation.superglue.data import SHIPPED
from pipeline.evaluation.superglue.tasks import TASK_BY_NAME, TASKS

REAL = Path(__file__).resolve().parents[3] / "shared" / "superglue"


def convert(task: str, line: dict[str, Any]) -> list[dict[str, Any]]:
    return list(TASK_BY_NAME[task].convert(line))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "superglue"))


def test_shipped_set_is_whole_and_balanced() -> None:
    for item in superglue_data.load(TASKS, None, 3):
        assert len(item.train) >= 8 and 12 <= len(item.validation) <= 16, item.task.name
        assert item.label == "shipped"
        if item.task.name != "record":
            labels = [example["label"] for example in item.validation]
            assert max(map(labels.count, set(labels))) <= 0.6 * len(labels), item.task.name


def test_shipped_spans_point_at_their_words() -> None:
    data = {item.task.name: item for item in superglue_data.load(TASKS, None, 3)}
    for example in data["wic"].train + data["wic"].validation:
        first = example["sentence1"][example["start1"] : example["end1"]].lower()
        second = example["sentence2"][example["start2"] : example["end2"]].lower()
        assert first[:2] == example["word"][:2] and second[:2] == example["word"][:2]
    for example in data["wsc"].train + data["wsc"].validation:
        words = example["text"].split()
        for span in ("span1", "span2"):
            first = example[f"{span}_text"].split()[0]
            assert words[example[f"{span}_index"]].strip(".,") == first
    for example in data["record"].validation:
        assert set(example["answers"]) <= set(example["entities"])


def test_labels_are_the_hubs() -> None:
    assert convert("boolq", {"question": "q", "passage": "p", "label": True})[0]["label"] == 1
    pair = {"premise": "p", "hypothesis": "h"}
    assert convert("sglue_rte", {**pair, "label": "not_entailment"})[0]["label"] == 1
    assert [
        convert("cb", {**pair, "label": name})[0]["label"] for name in ("entailment", "contradiction", "neutral")
    ] == [
        0,
        1,
        2,
    ]


def test_multirc_and_record_lines_become_many_examples() -> None:
    questions = [
        {"question": "q", "answers": [{"text": "a", "idx": 0, "label": 0}, {"text": "b", "idx": 1, "label": 1}]}
    ]
    found = convert("multirc", {"idx": 4, "passage": {"text": "t", "questions": questions}})
    assert [(example["answer"], example["label"]) for example in found] == [("a", 0), ("b", 1)]
    assert found[1]["idx"] == {"paragraph": 4, "question": 0, "answer": 1}
    line = {
        "passage": {
            "text": "Ann met Bob.\n@highlight\nAnn left",
            "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 10}],
        },
        "qas": [{"query": "@placeholder left.", "answers": [{"start": 0, "end": 2, "text": "Ann"}], "idx": 0}],
    }
    assert convert("record", line) == [
        {
            "passage": line["passage"]["text"],
            "query": "@placeholder left.",
            "entities": ["Ann", "Bob"],
            "answers": ["Ann"],
        }
    ]


def test_wsc_spans_are_fixed_as_on_the_hub() -> None:
    target = {"span1_index": 0, "span1_text": "the crowd.", "span2_index": 3, "span2_text": "it"}
    (example,) = convert("wsc", {"text": "The crowd roared; it sang", "target": target, "label": True})
    assert example["span1_text"] == "The crowd" and example["span2_text"] == "it"


def test_real_files_convert_whole() -> None:
    if not REAL.is_dir():
        pytest.skip("needs SuperGLUE's files in ../shared/superglue")
    for item in superglue_data.load(TASKS, str(REAL), 0):
        if item.task.name == "record":
            assert (len(item.validation), item.label) == (32, "partial")
            assert "32 of 10000" in item.notes[0]
        else:
            assert (len(item.validation), item.label) == (item.task.validation_size, "full"), item.task.name
    few_shot = superglue_data.load(TASKS, str(REAL), 3)
    assert {item.label for item in few_shot} == {"partial"}  # worked examples come from 32, not from thousands
    assert superglue_data.overall(few_shot) == "partial"


def test_other_sizes_are_your_own_data(folder: Path) -> None:
    data = superglue_data.load(TASKS, str(folder), 0)
    assert {item.label for item in data} == {"own"}


def test_missing_folder_is_named() -> None:
    with pytest.raises(DataError, match=r"/does/not/exist.*no such folder.*<Task>/val.jsonl"):
        superglue_data.load(TASKS, "/does/not/exist", 3)


def test_every_fault_is_named_at_once(folder: Path) -> None:
    (folder / "CB" / "val.jsonl").unlink()
    (folder / "RTE" / "train.jsonl").write_text("")
    copa = (folder / "COPA" / "val.jsonl").read_text().splitlines()
    (folder / "COPA" / "val.jsonl").write_text("\n".join([copa[0], "{not json", *copa[2:]]))
    wic = json.loads((folder / "WiC" / "val.jsonl").read_text().splitlines()[0])
    (folder / "WiC" / "val.jsonl").write_text(json.dumps({**wic, "end1": 999}) + "\n")
    boolq = json.loads((folder / "BoolQ" / "val.jsonl").read_text().splitlines()[0])
    del boolq["passage"]
    (folder / "BoolQ" / "val.jsonl").write_text(json.dumps(boolq) + "\n")
    (folder / "WSC" / "val.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError) as caught:
        superglue_data.load(TASKS, str(folder), 3)
    text = str(caught.value)
    for words in (
        "CB/val.jsonl: missing",
        "RTE/train.jsonl: empty",
        "COPA/val.jsonl:2: not JSON",
        "WiC/val.jsonl:1: fields start1 and end1 point outside",
        "BoolQ/val.jsonl:1: field 'passage' must be text",
        "WSC/val.jsonl: cannot be read as UTF-8",
        "6 faults",
    ):
        assert words in text


def test_too_few_worked_examples(folder: Path) -> None:
    with pytest.raises(DataError, match="8 examples, 9 shots need at least 10"):
        superglue_data.load([TASK_BY_NAME["cb"]], str(folder), 9)


def test_hub_out_of_reach_says_what_would_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingRequirementError, match=r"aps/super_glue \(cb\).*evaluation.data_dir=FOLDER"):
        superglue_data.load([TASK_BY_NAME["cb"]], "hub", 3)
