"""The eight tasks of SuperGLUE: folders, fields, sizes, and how a line of its JSONL becomes the hub's schema."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Example = dict[str, Any]


class MalformedError(ValueError):
    """A line is not an example of its task; the text says which field and why."""


@dataclass(frozen=True)
class SuperGlueTask:
    """One task. `convert` turns a line of JSONL into examples of the hub's schema, MultiRC's and ReCoRD's into many."""

    name: str  # the harness' name
    title: str  # its folder in SuperGLUE's own archive
    hub_name: str  # configuration of aps/super_glue
    train_size: int  # examples in the hub's schema
    validation_size: int
    convert: Callable[[Any], Iterator[Example]]
    cluster_key: str | None = None  # examples that share this text are no independent draws
    metric: Literal["acc", "f1"] = "acc"

    @property
    def harness_file(self) -> str:
        """The stock task file, below lm_eval/tasks/super_glue."""
        return f"{self.hub_name.removesuffix('.fixed')}/default.yaml"


def _field(line: Any, key: str) -> Any:
    return line.get(key) if isinstance(line, dict) else None


def _text(line: Any, key: str) -> str:
    value = _field(line, key)
    if not isinstance(value, str):
        raise MalformedError(f"field {key!r} must be text")
    return value


def _whole(line: Any, key: str) -> int:
    value = _field(line, key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"field {key!r} must be a whole number")
    return value


def _label(line: Any, names: tuple[Any, ...]) -> int:
    value = _field(line, "label")
    for index, name in enumerate(names):
        if type(value) is type(name) and value == name:
            return index
    raise MalformedError(f"field 'label' must be one of {', '.join(map(str, names))}")


def _list(line: Any, key: str) -> list[Any]:
    value = _field(line, key)
    if not isinstance(value, list) or not value:
        raise MalformedError(f"field {key!r} must be a list with entries")
    return value


def _boolq(line: Any) -> Iterator[Example]:
    yield {
        "question": _text(line, "question"),
        "passage": _text(line, "passage"),
        "label": _label(line, (False, True)),
    }


def _entailment(names: tuple[str, ...]) -> Callable[[Any], Iterator[Example]]:
    def convert(line: Any) -> Iterator[Example]:
        yield {
            "premise": _text(line, "premise"),
            "hypothesis": _text(line, "hypothesis"),
            "label": _label(line, names),
        }

    return convert


def _copa(line: Any) -> Iterator[Example]:
    if _text(line, "question") not in ("cause", "effect"):
        raise MalformedError("field 'question' must be cause or effect")
    texts = {key: _text(line, key) for key in ("premise", "choice1", "choice2", "question")}
    yield {**texts, "label": _label(line, (0, 1))}


def _multirc(line: Any) -> Iterator[Example]:
    passage = _field(line, "passage")
    paragraph = _text(passage, "text")
    for number, question in enumerate(_list(passage, "questions")):
        for answer in _list(question, "answers"):
            yield {
                "paragraph": paragraph,
                "question": _text(question, "question"),
                "answer": _text(answer, "text"),
                "idx": {"paragraph": line.get("idx", 0), "question": number, "answer": answer.get("idx", 0)},
                "label": _label(answer, (0, 1)),
            }


def _record(line: Any) -> Iterator[Example]:
    passage = _field(line, "passage")
    text = _text(passage, "text")
    spans = [(_whole(span, "start"), _whole(span, "end")) for span in _list(passage, "entities")]
    if any(not 0 <= start <= end < len(text) for start, end in spans):
        raise MalformedError("field 'entities' has a span outside the passage")
    entities = sorted({text[start : end + 1] for start, end in spans})  # ends are inclusive
    for question in _list(line, "qas"):
        query = _text(question, "query")
        if "@placeholder" not in query:
            raise MalformedError("field 'query' must hold @placeholder")
        answers = sorted({_text(answer, "text") for answer in _list(question, "answers")})
        yield {"passage": text, "query": query, "entities": entities, "answers": answers}


def _wic(line: Any) -> Iterator[Example]:
    example: Example = {key: _text(line, key) for key in ("word", "sentence1", "sentence2")}
    for number in ("1", "2"):
        start, end = _whole(line, f"start{number}"), _whole(line, f"end{number}")
        if not 0 <= start < end <= len(example[f"sentence{number}"]):
            raise MalformedError(f"fields start{number} and end{number} point outside sentence{number}")
        example |= {f"start{number}": start, f"end{number}": end}
    yield {**example, "label": _label(line, (False, True))}


def _wsc(line: Any) -> Iterator[Example]:
    text = _text(line, "text")
    target = line.get("target")
    example: Example = {"text": text}
    for span in ("span1", "span2"):
        index, words = _whole(target, f"{span}_index"), text.split()
        if not 0 <= index < len(words):
            raise MalformedError(f"field '{span}_index' points outside the text")
        example |= {f"{span}_index": index, f"{span}_text": _matched(_text(target, f"{span}_text"), words[index], text)}
    yield {**example, "label": _label(line, (False, True))}


def _matched(span: str, first_word: str, text: str) -> str:
    """The hub's wsc.fixed: spans that are no part of the text get its capitals, line breaks and no final period."""
    if span in text:
        return span
    initial = span[:1].lower() if first_word[:1].islower() else span[:1].upper()
    fixed = (initial + span[1:]).rstrip(".").replace("\n", " ")
    return fixed if fixed in text else span


_rte = _entailment(("entailment", "not_entailment"))
_cb = _entailment(("entailment", "contradiction", "neutral"))

TASKS: tuple[SuperGlueTask, ...] = (
    SuperGlueTask("boolq", "BoolQ", "boolq", 9427, 3270, _boolq, "passage"),
    SuperGlueTask("sglue_rte", "RTE", "rte", 2490, 277, _rte),
    SuperGlueTask("cb", "CB", "cb", 250, 56, _cb),
    SuperGlueTask("copa", "COPA", "copa", 400, 100, _copa),
    SuperGlueTask("record", "ReCoRD", "record", 100730, 10000, _record, "passage", metric="f1"),
    SuperGlueTask("wic", "WiC", "wic", 5428, 638, _wic),
    SuperGlueTask("wsc", "WSC", "wsc.fixed", 554, 104, _wsc),
    SuperGlueTask("multirc", "MultiRC", "multirc", 27243, 4848, _multirc, "paragraph"),
)
TASK_BY_NAME = {task.name: task for task in TASKS}
