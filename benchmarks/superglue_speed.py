"""Requests a second of our adapter and of the harness' own `hf` backend: same machine, weights and tasks.

    python -m benchmarks.superglue_speed [questions=4] [rounds=3] [batch_size=8] [threads=0]
        [data_dir=FOLDER] [tokenizer_dir=FOLDER] [model=gpt2]

A 124M GPT-2 shape with random weights, CPU, float32; three-shot BoolQ (choices of one token) and zero-shot
ReCoRD (some ten choices behind a passage). The two alternate within one run; medians are printed, and the
largest difference of a log-likelihood, which must be below 1e-4 relative to its size.
"""

import json
import statistics
import sys
import time
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import GPT2TokenizerFast

from benchmarks.gpt2_export import to_gpt2
from pipeline.compose import model_config
from pipeline.data.gpt2 import load_gpt2
from pipeline.evaluation.harness import adapter as superglue
from pipeline.evaluation.scoring.scorer import Scorer
from pipeline.evaluation.superglue import data as superglue_data
from pipeline.evaluation.superglue.tasks import TASK_BY_NAME
from pipeline.models import build_model
from pipeline.provenance import device_description

SETTINGS: dict[str, Any] = {
    "questions": 4,
    "rounds": 3,
    "batch_size": 8,
    "threads": 0,
    "data_dir": None,
    "tokenizer_dir": None,
    "model": "gpt2",
}
WORKLOADS = (("boolq", 3), ("record", 0))


def main(arguments: list[str]) -> int:
    settings = dict(SETTINGS)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in settings:
            print(f"error: {argument}: takes {', '.join(settings)}, each as key=value", file=sys.stderr)
            return 2
        settings[key] = int(value) if isinstance(SETTINGS[key], int) else value
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    model = build_model(model_config(settings["model"]), seed=1)
    tokenizer = load_gpt2(settings["tokenizer_dir"])
    theirs = HFLM(
        pretrained=to_gpt2(model), tokenizer=_fast_tokenizer(settings), batch_size=settings["batch_size"], device="cpu"
    )
    scorer = Scorer(model, batch_size=settings["batch_size"])
    ours = superglue.HarnessModel(scorer, tokenizer)
    rows = [_compare(name, shots, ours, theirs, settings) for name, shots in WORKLOADS]
    report = {
        "device": device_description(),
        "threads": torch.get_num_threads(),
        "model": settings["model"],
        "batch_size": settings["batch_size"],
        "rows": rows,
    }
    print(json.dumps(report, indent=2))
    return 0


def _compare(name: str, shots: int, ours: Any, theirs: Any, settings: dict[str, Any]) -> dict[str, Any]:
    (data,) = superglue_data.load([TASK_BY_NAME[name]], settings["data_dir"], shots)
    task = superglue.superglue_task(data)
    task.build(shots, 1234, settings["questions"])
    requests = task.task.instances
    speeds: dict[str, list[float]] = {"ours": [], "hf": []}
    found: dict[str, list[tuple[float, bool]]] = {}
    for attempt in range(settings["rounds"] + 1):  # the first warms up
        for label, backend in (("ours", ours), ("hf", theirs)):
            asked = requests if attempt else requests[: max(2, len(requests) // settings["questions"])]
            started = time.perf_counter()
            answers = backend.loglikelihood(asked, disable_tqdm=True)
            seconds = time.perf_counter() - started
            if attempt:
                speeds[label].append(len(asked) / seconds)
                found[label] = answers
    largest = max(abs(a - b) for (a, _), (b, _) in zip(found["ours"], found["hf"], strict=True))
    ratios = [mine / his for mine, his in zip(speeds["ours"], speeds["hf"], strict=True)]
    return {
        "task": name,
        "n_shot": shots,
        "data": data.label,
        "questions": settings["questions"],
        "requests": len(requests),
        "ours_requests_per_s_median": statistics.median(speeds["ours"]),
        "hf_requests_per_s_median": statistics.median(speeds["hf"]),
        "ratio_median": statistics.median(ratios),
        "ratio_least": min(ratios),
        "rounds": settings["rounds"],
        "largest_loglikelihood_difference_nats": largest,
        "same_greedy": [g for _, g in found["ours"]] == [g for _, g in found["hf"]],
    }


def _fast_tokenizer(settings: dict[str, Any]) -> GPT2TokenizerFast:
    folder = settings["tokenizer_dir"]
    if folder is None:
        return GPT2TokenizerFast.from_pretrained("openai-community/gpt2")
    return GPT2TokenizerFast(f"{folder}/encoder.json", f"{folder}/vocab.bpe")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
