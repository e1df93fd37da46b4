"""A model's forward as tasks on two streams: its own text, run on costs, with a device's rates.

A sum starts on the communication stream behind what was computed so far; a wait holds the next kernel back until the
sum has ended. Overlap is whatever then comes out.
"""

from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.models.count import BYTES
from pipeline.models.trace import Kernel, Start, Wait, trace
from pipeline.projection.hardware import Hardware
from pipeline.projection.timeline import Task, Timeline, schedule

CANDIDATE_BYTES = 16  # a logit and its token


@dataclass(frozen=True)
class Prefill:
    """One rank's prompt-to-first-token on a device."""

    timeline: Timeline
    collectives: int  # all-reduces; the gather of logits is not one
    collective_bytes: int  # bytes that enter them on one rank


def prefill(
    model: ModelConfig,
    hardware: Hardware,
    context: int,
    tp_size: int,
    batch_size: int = 1,
    dtype: str = "float16",
    communicate: bool = True,
    gather_logits: bool = True,
) -> Prefill:
    """Place one rank's forward; `communicate=False` leaves all collectives out (the bound).

    The head's vocabulary is cut over the ranks, as in the trace, and its logits are gathered, as TensorRT-LLM does; or
    the ranks exchange one candidate a sequence, as the pipeline's own engine does.
    Raises ConfigError where tp_size does not divide the model.
    """
    item, communicate = BYTES[dtype], communicate and tp_size > 1
    traced = trace(model, tp_size, batch_size, context)
    tasks: list[Task] = []
    sums: dict[int, int] = {}  # Start -> its task
    awaited: list[int] = []
    last_kernel: tuple[int, ...] = ()
    for step in traced.steps:
        if isinstance(step, Kernel):
            if step.serves is not None and not communicate:
                continue
            seconds = hardware.kernel_seconds(step.flops, item * step.elements, step.category == "attention")
            tasks.append(Task(step.name, step.category, "compute", seconds, tuple(awaited), step.layer))
            awaited, last_kernel = [], (len(tasks) - 1,)
        elif communicate and isinstance(step, Start):
            seconds = hardware.all_reduce_seconds(item * step.elements, tp_size)
            sums[id(step)] = len(tasks)
            tasks.append(Task("all_reduce", "all_reduce", "communication", seconds, last_kernel, step.layer))
            if work := hardware.link_cpu_s_per_byte * item * step.elements:
                tasks.append(Task("move_bytes", "all_reduce", "compute", work, (), step.layer))
        elif communicate and isinstance(step, Wait):
            awaited.append(sums[id(step.start)])
    if communicate:
        share = batch_size * (item * model.vocab_size / tp_size if gather_logits else CANDIDATE_BYTES)  # of one rank
        seconds = hardware.all_gather_seconds(share, tp_size)
        tasks.append(Task("gather_logits", "all_reduce", "communication", seconds, last_kernel))
    sent = [item * start.elements for start in traced.starts] if communicate else []
    return Prefill(schedule(tasks), len(sent), sum(sent))
