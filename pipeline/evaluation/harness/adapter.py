"""Tasks of the lm-evaluation-harness scored with our models. The only file that imports lm_eval."""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import lm_eval.api.task as harness_task
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from pipeline.data import Tokenizer
from pipeline.errors import ConfigError, DataError, MissingRequirementError
from pipeline.evaluation.scoring.requests import Request, Tokens
from pipeline.evaluation.scoring.scorer import Progress, Scorer
from pipeline.evaluation.superglue.data import TaskData
from pipeline.provenance import fingerprint

HARNESS_VERSION: str = lm_eval.__version__
STOCK = Path(lm_eval.__file__).parent / "tasks" / "super_glue"


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is untyped
    """What the harness calls a model: tokenise, and hand the tokens to a scorer."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer, progress: Progress = lambda done: None) -> None:
        super().__init__()
        self.scorer = scorer
        self.tokens = tokenizer
        self.progress = progress

    @property
    def eot_token_id(self) -> int:
        return self.tokens.eot_token

    @property
    def max_length(self) -> int:
        return self.scorer.block_size

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokens.encode(string)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Tokenised as TemplateLM does, each distinct text once and in batches."""
        pairs = [_split(*request.args) for request in requests]
        contexts = self._encode_all({context for context, _ in pairs if context})
        wholes = self._encode_all({context + continuation for context, continuation in pairs})
        asked = []
        for context, continuation in pairs:
            whole = wholes[context + continuation]
            if context:
                asked.append(Request(contexts[context], whole[len(contexts[context]) :]))
            elif whole[0] == self.eot_token_id:
                asked.append(Request(whole[:1], whole[1:]))
            else:
                asked.append(Request((self.eot_token_id,), whole))
        return self._score(asked)

    def _loglikelihood_tokens(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
        return self._score([Request(tuple(context), tuple(continuation)) for _, context, continuation in requests])

    def _score(self, requests: list[Request]) -> list[tuple[float, bool]]:
        scores = self.scorer.loglikelihood(requests, self.progress)
        return [(score.loglikelihood, score.is_greedy) for score in scores]

    def _encode_all(self, texts: set[str]) -> dict[str, Tokens]:
        ordered = sorted(texts)
        return {text: tuple(ids) for text, ids in zip(ordered, self.tokens.encode_batch(ordered), strict=True)}

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Whole texts in windows of block_size, each token predicted once, the first after end-of-text."""
        windows: list[Request] = []
        owners: list[int] = []
        for index, request in enumerate(requests):
            tokens = self.tokens.encode(request.args[0])
            for pair in get_rolling_token_windows(tokens, self.eot_token_id, self.max_length, 1):
                context, continuation = make_disjoint_window(pair)
                windows.append(Request(tuple(context), tuple(continuation)))
                owners.append(index)
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, self.scorer.loglikelihood(windows), strict=True):
            totals[owner] += score.loglikelihood
        self.progress(len(requests))
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Greedy; a task that asks for sampling is refused. At most half of block_size is generated."""
        from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

        answers: dict[int, str] = {}
        kinds: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            kinds.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        for indices in kinds.values():
            settings = normalize_gen_kwargs(requests[indices[0]].args[1], 256)
            if settings.get("do_sample"):
                raise ConfigError(
                    f"task {requests[indices[0]].task_name}: asks for sampled text (do_sample); "
                    "greedy generation only, choose another task"
                )
            stops = handle_stop_sequences(settings.get("until"), self.tokens.decode([self.eot_token_id]))
            room = min(int(settings["max_gen_toks"]), self.max_length // 2)
            prompts = [tuple(self.tokens.encode(requests[index].args[0])) or (self.eot_token_id,) for index in indices]
            found = self.scorer.generate(prompts, room, self._stopper(stops), self.progress)
            for index, tokens in zip(indices, found, strict=True):
                answers[index] = postprocess_generated_text(self.tokens.decode(tokens), stops, None)
        return [answers[index] for index in range(len(requests))]

    def _stopper(self, stops: list[str]) -> Callable[[Tokens], bool]:
        def is_finished(tokens: Tokens) -> bool:
            text = self.tokens.decode(tokens)
            return any(stop and stop in text for stop in stops)

        return is_finished


def _split(context: str, continuation: str) -> tuple[str, str]:
    """Spaces that end the context begin the continuation, as in TemplateLM."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


@dataclass
class HarnessTask:
    """A task of the harness, its requests built."""

    name: str
    task: Any
    data: TaskData | None = None
    limit: int | None = None

    @property
    def version(self) -> str:
        return str(self.task.VERSION)

    def key(self) -> dict[str, str]:
        """Names the task: its version, and our examples, or prompt, data and metric as the task file has them."""
        if self.data is not None:
            return {"version": self.version, "data": self.data.key()}
        return {"version": self.version, "settings": fingerprint(self.task.dump_config())}

    @property
    def requests(self) -> int:
        return len(self.task.instances)

    def build(self, n_shot: int, seed: int, limit: int) -> None:
        """Prompts of every question. Worked examples are drawn in order: built twice, they would differ."""
        self.task.set_config(key="num_fewshot", value=n_shot)
        self.task.set_fewshot_seed(seed=seed)
        self.limit = limit or None
        with quiet():
            self.task.build_all_requests(limit=self.limit, rank=0, world_size=1)

    def texts(self) -> Iterator[str]:
        """Everything that must be representable as tokens; a text may come more than once."""
        for instance in self.task.instances:
            yield from (part for part in instance.args if isinstance(part, str))

    def score(self, model: HarnessModel, bootstrap_iters: int) -> dict[str, Any]:
        """Run it: the harness' metrics, {"metric": (value, standard error or None)}, and every sample."""
        self.task.build_all_requests = lambda **_: None  # they are built
        with quiet():
            result = lm_eval.evaluate(
                model, {"tasks": {self.name: self.task}}, limit=self.limit, bootstrap_iters=bootstrap_iters
            )
        return {"metrics": _metrics(result["results"][self.name]), "samples": result["samples"][self.name]}

    def chance_of(self, sample: dict[str, Any], metric: str) -> float:
        """Expected value of `metric` on one question when every choice is as likely to be picked."""
        count = len(sample["arguments"])
        if metric == "acc":
            return 1 / count
        total = 0.0
        for chosen in range(count):
            results = [(0.0 if index == chosen else -1.0, False) for index in range(count)]
            total += float(self.task.process_results(sample["doc"], results)[metric])
        return total / count


def superglue_task(data: TaskData) -> HarnessTask:
    """The harness' stock task, default prompt and all, over our examples."""
    settings = dict(load_yaml(STOCK / data.task.harness_file))
    for key in ("tag", "dataset_path", "dataset_name"):
        settings.pop(key, None)
    splits = {
        "train": datasets.Dataset.from_list(data.train),
        "validation": datasets.Dataset.from_list(data.validation),
    }
    with quiet():
        task = ConfigurableTask(config={**settings, "custom_dataset": lambda **_: splits})
    return HarnessTask(data.task.name, task, data)


def named_tasks(names: Sequence[str], task_dir: str | None) -> list[HarnessTask]:
    """Any tasks of the harness, groups and tags included.

    Raises ConfigError for a name the harness does not know, MissingRequirementError where a task's data
    set cannot be had.
    """
    with quiet():
        manager = _task_manager(task_dir)
        unknown = [name for name in names if name not in manager.task_index]
        if unknown:
            import difflib

            near = [close for name in unknown for close in difflib.get_close_matches(name, manager.all_tasks, n=2)]
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"tasks={unknown}: no such task in lm-evaluation-harness {HARNESS_VERSION}{hint}")
        try:
            loaded = manager.load(list(names))
        except Exception as error:  # data set loaders raise many kinds
            raise MissingRequirementError(
                f"tasks={list(names)}: a data set cannot be loaded ({type(error).__name__}: {str(error)[:200]}). "
                "Go online, or fetch it into the local cache of the datasets library first"
            ) from error
    return [HarnessTask(name, task) for name, task in loaded["tasks"].items()]


@functools.cache
def _task_manager(task_dir: str | None) -> TaskManager:
    """The harness' index of its thousands of task files: seconds to build."""
    return TaskManager(include_path=task_dir)


def check_representable(tasks: Sequence[HarnessTask], tokenizer: Tokenizer, vocab_size: int) -> None:
    """Every text must come back from its tokens unchanged, and every token have a row in the model.

    Raises DataError naming the task and the text: such a score would be low for no fault of the model.
    """
    for task in tasks:
        texts = sorted(set(task.texts()))
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            if any(token >= vocab_size for token in ids):
                raise DataError(
                    f"task {task.name}: the tokenizer gives token {max(ids)}, the model has {vocab_size} rows; "
                    "this tokenizer is not the model's own"
                )
            if tokenizer.decode(ids) != text:
                raise DataError(
                    f"task {task.name}: the tokenizer cannot represent {_different(text, tokenizer.decode(ids))}; "
                    "a score would be low for no fault of the model. A byte-level tokenizer can"
                )


def _different(text: str, back: str) -> str:
    """Where two texts part, for a message."""
    at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    return f"{text[at : at + 20]!r} (it comes back as {back[at : at + 20]!r})"


def _metrics(results: dict[str, Any]) -> dict[str, tuple[float, float | None]]:
    """{"acc": (value, standard error)} from the harness' "acc,none" and "acc_stderr,none"."""
    found: dict[str, tuple[float, float | None]] = {}
    for key, value in results.items():
        name, comma, filter_name = key.partition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        error = results.get(f"{name}_stderr,{filter_name}")
        label = name if filter_name == "none" else key
        found[label] = (float(value), float(error) if isinstance(error, (int, float)) else None)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings of the harness about its own defaults, and no bars but ours: it has no switch for that of prompts."""
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, harness_task.tqdm
    logger.setLevel(logging.ERROR)
    harness_task.tqdm = lambda items, **_: items
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        harness_task.tqdm = bar
        datasets.enable_progress_bars()
