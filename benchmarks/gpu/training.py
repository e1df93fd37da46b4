"""How fast a model trains in bfloat16, compiled, on one GPU: the pipeline's own loop, called as its workers call it."""

import contextlib
import gc
import math
import shutil
import statistics
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import tokens
from benchmarks.gpu.part import Answer, Found, Part, Wanted
from benchmarks.gpu.place import Place
from benchmarks.gpu.results import LossPoint
from benchmarks.gpu.settings import Settings
from pipeline import files
from pipeline.config.group import Group
from pipeline.models import count
from pipeline.provenance import fingerprint
from pipeline.training.job import TrainingJob, Worker
from pipeline.training.log import LogTail, RunLog, text_line
from pipeline.training.loop import train
from pipeline.training.loss import CHUNK_BYTES
from pipeline.training.throughput import peak_flops

TRIAL_STEPS = 5  # the first one compiles
MICRO_BATCHES = (40, 80)  # sequences; tried upwards for as long as each pays, downwards where none fits
PAYS = 1.02  # times the tokens a second of the one before
STEPPING_S = 240.0  # what the steps may take; a slower GPU accumulates a smaller global batch
FOLLOW_S = 5.0
CHOICE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """What was found by trying: how the global batch is cut, and what compiling took."""

    micro_batch_size: int
    global_batch_size: int
    compile_s: float
    tried: dict[str, float | None]  # tokens/s by micro-batch; None: out of memory


def part(model: str, about: str, minutes: float, mfu: float | None) -> Part:
    """The part that trains `model`, and what its MFU should be at least."""
    wanted = (
        Wanted("tokens a second", "tokens/s"),
        Wanted("MFU", "share", mfu),
        Wanted("compile time", "s"),
        Wanted("micro-batch", ""),
        Wanted("global batch", ""),
        Wanted("peak memory", "bytes"),
        Wanted("planned memory", "bytes"),
        Wanted("first loss", ""),
        Wanted("last loss", ""),
        Wanted("losses finite", "yes/no", 1),
    )

    def read(settings: Settings) -> dict[str, Any]:
        groups = (settings.training, settings.cluster)
        return {"model": settings.model(model).identity(), "groups": [one.model_dump(mode="json") for one in groups]}

    def run(part: Part, place: Place, settings: Settings, folder: Path) -> Answer:
        return _run(part, model, place, settings, folder)

    code = ("benchmarks/gpu/training.py", "benchmarks/gpu/tokens.py", "pipeline/training/loop.py")
    question = f"training of {about}, bfloat16, compiled: tokens/s, MFU, memory against the plan"
    return Part(f"train_{about.split()[0]}", question, minutes, wanted, code, read, run)


def make_job(settings: Settings, model: str, place: Place, folder: Path, **changed: Any) -> TrainingJob:
    """A job on made-up tokens in `folder`/run; `changed` are fields of the training and cluster groups."""
    training = settings.training.model_copy(update=_fields_of(settings.training, changed))
    cluster = settings.cluster.model_copy(update=_fields_of(settings.cluster, changed))
    config = settings.model(model)
    data = place.scratch / f"tokens-{config.vocab_size}"
    sizes = {"train": 40_000, "val": 4_000} if place.tiny else None
    run_folder = folder / "run"
    run_folder.mkdir(parents=True, exist_ok=True)
    named = fingerprint(config.identity(), training.model_dump(mode="json"))
    return TrainingJob(
        model=config,
        training=training,
        cluster=cluster,
        data_folder=tokens.write(data, min(config.vocab_size, 50257), sizes),
        run_folder=run_folder,
        fingerprint=named,
        device_flops=settings.device_flops,
    )


def _fields_of(group: Group, changed: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changed.items() if hasattr(group, key)}


def _run(part: Part, model: str, place: Place, settings: Settings, folder: Path) -> Answer:
    choice = _choice(model, place, settings, folder)
    before = RunLog(folder / "run").read()
    while not _trained(job := _chosen_job(settings, model, place, folder, choice), place.device):
        choice = replace(choice, micro_batch_size=next(_halved(choice.micro_batch_size, choice.global_batch_size)))
        files.write_json(folder / CHOICE, asdict(choice))
    log = RunLog(job.run_folder)
    records = [record for record in log.read() if record["kind"] == "train"]
    found = _figures(part, job, choice, records, place)
    if before:
        found.notes.append("was interrupted and went on from a checkpoint")
    if choice.global_batch_size < settings.training.global_batch_size:
        found.notes.append(f"global batch made smaller so that {job.training.steps} steps end in time")
    return found


def _chosen_job(settings: Settings, model: str, place: Place, folder: Path, choice: Choice) -> TrainingJob:
    print(f"micro-batch {choice.micro_batch_size}, global batch {choice.global_batch_size}", flush=True)
    sizes = {"micro_batch_size": choice.micro_batch_size, "global_batch_size": choice.global_batch_size}
    return make_job(settings, model, place, folder, **sizes)


def _trained(job: TrainingJob, device: torch.device) -> bool:
    """Train to the end, from where it was left; False where the memory does not suffice."""
    forget(device)
    try:
        with _following(RunLog(job.run_folder), job.training.steps):
            train(job, Worker(device=device), lambda values: None)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def is_out_of_memory(error: RuntimeError) -> bool:
    """The allocator's own error, the compiler's around it, or cuBLAS without its workspace."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "alloc_failed" in text


def _figures(part: Part, job: TrainingJob, choice: Choice, records: list[dict[str, Any]], place: Place) -> Found:
    """Medians over the log lines but the first, which holds the compilation or its reading back."""
    rate = statistics.median(record["tokens_per_s"] for record in records[1:] or records)
    losses = [record["loss_nats"] for record in records]
    chunk = CHUNK_BYTES[place.device.type]
    planned = count.training_memory_bytes(job.model, choice.micro_batch_size, job.training.precision, chunk)
    peak = peak_flops(place.name, job.training.precision, job.device_flops)
    figures = [
        part.figure("tokens a second", rate),
        part.figure("compile time", choice.compile_s),
        part.figure("micro-batch", choice.micro_batch_size, measured=False),
        part.figure("global batch", choice.global_batch_size, measured=False),
        part.figure("peak memory", max(record["memory_bytes"] for record in records)),
        part.figure("planned memory", planned, measured=False),
        part.figure("first loss", losses[0]),
        part.figure("last loss", losses[-1]),
        part.figure("losses finite", all(map(math.isfinite, losses))),
    ]
    told = {
        size: "out of memory" if found is None else f"{found:,.0f} tokens/s" for size, found in choice.tried.items()
    }
    tried = ", ".join(f"{size}: {found}" for size, found in told.items())
    notes = [f"micro-batches tried (steps alone): {tried}", "tokens a second: median over log lines but the first"]
    notes.append("compile time: what the first step of all took beyond a steady one")
    if peak is None:
        notes.append(f"no MFU: conf/hardware has no bfloat16 peak of {place.name}")
    else:
        flops = count.training_flops_per_token(job.model)
        figures.insert(1, part.figure("MFU", rate * flops / peak))
        notes.append(f"MFU: {flops:,} FLOPs a token, attention counted causal, of {peak:.4g} FLOP/s dense bfloat16")
    curve = [LossPoint(**{key: record[key] for key in LossPoint.model_fields}) for record in records]
    return Found(figures, notes, {"curve": curve})


def _choice(model: str, place: Place, settings: Settings, folder: Path) -> Choice:
    """The micro-batch that pays; kept in `folder`, with every trial, so that nothing is tried twice."""
    path = folder / CHOICE
    if path.is_file():
        return Choice(**files.read_json(path))
    whole = settings.training.global_batch_size
    tried: dict[int, tuple[float, float] | None] = {}  # tokens/s and seconds of compiling
    best = 0
    for size in (2, 4) if place.tiny else MICRO_BATCHES:
        tried[size] = _try(model, place, settings, folder, size)
        if not _pays(tried[size], tried.get(best)):
            break
        best = size
    for size in () if best else _halved(min(tried), whole):
        tried[size] = _try(model, place, settings, folder, size)
        if tried[size]:
            best = size
            break
    fitting = tried.get(best)
    if fitting is None:
        raise torch.OutOfMemoryError(f"{model}: not even one sequence fits this GPU")
    rate, compile_s = fitting
    most = int(rate * STEPPING_S / settings.training.steps / settings.model(model).block_size)
    batch = max(best, min(whole, most) // best * best)
    choice = Choice(best, batch, compile_s, {str(size): found and found[0] for size, found in tried.items()})
    files.write_json(path, asdict(choice))
    return choice


def _pays(found: tuple[float, float] | None, before: tuple[float, float] | None) -> bool:
    return found is not None and (before is None or found[0] > PAYS * before[0])


def _halved(size: int, whole: int) -> Iterator[int]:
    """Ever smaller micro-batches that divide the global batch."""
    while size > 1:
        size = max(one for one in range(1, size // 2 + 1) if whole % one == 0)
        yield size


def _try(model: str, place: Place, settings: Settings, folder: Path, size: int) -> tuple[float, float] | None:
    """(tokens/s, seconds of compiling) of a few steps at this micro-batch; None where the memory does not suffice."""
    whole = settings.training.global_batch_size
    batch = whole // 2 if whole // 2 % size == 0 else whole
    few = {"steps": TRIAL_STEPS, "global_batch_size": batch, "eval_interval": TRIAL_STEPS, "eval_windows": 1}
    often = {"micro_batch_size": size, "log_interval": 1, "checkpoint_interval": 1_000_000}
    trial = folder / f"trial-{size}"
    shutil.rmtree(trial, ignore_errors=True)
    job = make_job(settings, model, place, trial, **few, **often)
    fits = _trained(job, place.device)
    records = [record for record in RunLog(job.run_folder).read() if record["kind"] == "train"]
    shutil.rmtree(trial, ignore_errors=True)
    if not fits:
        print(f"micro-batch {size}: out of memory", flush=True)
        return None
    tokens_a_step = batch * job.model.block_size
    seconds = [tokens_a_step / record["tokens_per_s"] for record in records]
    steady = statistics.median(seconds[1:])
    print(f"micro-batch {size}: {tokens_a_step / steady:,.0f} tokens/s", flush=True)
    return tokens_a_step / steady, max(0.0, seconds[0] - steady)


def forget(device: torch.device) -> None:
    """Give back what earlier training in this process holds: graphs, memory, and the highest use so far."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@contextlib.contextmanager
def _following(log: RunLog, steps: int) -> Iterator[None]:
    """Show the log's lines while training writes them."""
    tail, ended = LogTail(log), threading.Event()

    def show() -> None:
        for record in tail.new_records():
            print(text_line(record, steps), flush=True)

    def follow() -> None:
        while not ended.wait(FOLLOW_S):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()
