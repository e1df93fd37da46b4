"""How much of a collective of known duration hides on the side stream, in the standard model and in Kraken.

Each model's prefill is timed with its collectives left out, on their way while it computes, and awaited where they
start. What hid is (blocking - overlapped) / (blocking - left out), of the device's own time (CUDA events).
"""

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.part import Answer, Found, Part, Wanted
from benchmarks.gpu.place import Place
from benchmarks.gpu.settings import Settings
from pipeline.benchmark.protocol import Rules
from pipeline.benchmark.ranks.bench import Bench
from pipeline.benchmark.ranks.spec import Mode, Variant
from pipeline.benchmark.ttft import SEED
from pipeline.communication import BlockingCommunicator, Communicator, SkippedCommunicator
from pipeline.communication.modelled import ModelledCommunicator
from pipeline.communication.stream import modelled_communicator
from pipeline.models import Placement, count

MODELS = {"standard": "standard_13b", "kraken": "kraken_13b_4way"}
TP_SIZE, LAYERS, CONTEXT = 4, 8, 2048
MICROSECONDS = (50, 100, 200, 800)
RULES = Rules(warmup_min=5, warmup_max=15, repeats_min=20, repeats_max=60, interval_width=0.01, time_limit_s=15)
TINY_RULES = Rules(warmup_min=1, warmup_max=2, repeats_min=3, repeats_max=5, interval_width=0.5, time_limit_s=1)
MODES: tuple[Mode, ...] = ("skipped", "overlapped", "blocking")


def part() -> Part:
    wanted = []
    for each in MICROSECONDS:
        wanted += [Wanted(_hidden(name, each), "share") for name in MODELS]
        wanted.append(Wanted(_took(each), "us"))

    def read(settings: Settings) -> dict[str, Any]:
        return {name: settings.model(model).identity() for name, model in MODELS.items()}

    code = ("benchmarks/gpu/overlap.py", "pipeline/benchmark/ranks/bench.py", "pipeline/communication/stream.py")
    question = "share of a modelled collective that hides on the side stream: standard and Kraken"
    return Part("overlap", question, 2, tuple(wanted), code, read, _run)


def _run(part: Part, place: Place, settings: Settings, folder: Path) -> Answer:
    layers = {"n_layer": min(LAYERS, settings.model(MODELS["standard"]).n_layer)}
    models = {name: settings.model(model).model_copy(update=layers) for name, model in MODELS.items()}
    context = min(CONTEXT, models["standard"].block_size)
    dtype = "float32" if place.device.type == "cpu" else "float16"
    rules = TINY_RULES if place.tiny else RULES
    figures = []
    for each in MICROSECONDS:
        bench = Bench(Placement(0, TP_SIZE), place.device, dtype, SEED, True, _modes(place.device, each * 1e-6))
        bench.build(models, {}, shared=False)
        variants = [Variant(name, mode) for name in models for mode in MODES]
        with torch.inference_mode():
            rounds = bench.rounds(variants, bench.tokens(context, 1), lambda values: values, rules)
        times = rounds.device_ms if place.device.type == "cuda" else rounds.samples_ms
        took = []
        for name, model in models.items():
            skipped, overlapped, blocking = (statistics.median(times[Variant(name, mode).key]) for mode in MODES)
            collectives = count.collectives(model).total
            took.append((blocking - skipped) / collectives * 1e3)
            if blocking > skipped:
                figures.append(part.figure(_hidden(name, each), (blocking - overlapped) / (blocking - skipped)))
            print(
                f"{each} us, {name}: {skipped:.3f} ms without, {overlapped:.3f} overlapped, {blocking:.3f} awaited",
                flush=True,
            )
        figures.append(part.figure(_took(each), statistics.mean(took)))
    return Found(figures, _notes(place, models, context), {})


def _modes(device: torch.device, seconds: float) -> dict[Mode, Communicator]:
    modelled: Communicator = ModelledCommunicator(TP_SIZE, lambda size: seconds)
    if device.type == "cuda":
        modelled = modelled_communicator(TP_SIZE, lambda size: seconds, device)
    return {"skipped": SkippedCommunicator(TP_SIZE), "overlapped": modelled, "blocking": BlockingCommunicator(modelled)}


def _notes(place: Place, models: dict[str, Any], context: int) -> list[str]:
    notes = []
    for name, model in models.items():
        counted = count.collectives(model)
        notes.append(
            f"{name}: {model.name}, {model.n_layer} layers, one rank of {TP_SIZE}, T={context}; {counted.total} "
            f"collectives, {counted.total - counted.blocking} of them with work to hide under"
        )
    if place.device.type == "cuda":
        notes.append("each prefill is one CUDA graph, side stream and all")
    else:
        notes.append("no side stream and no CUDA graph on a CPU: pauses stand in for the collectives")
    return notes


def _hidden(name: str, microseconds: int) -> str:
    return f"hidden of {microseconds} us: {name}"


def _took(microseconds: int) -> str:
    return f"a collective of {microseconds} us took"
