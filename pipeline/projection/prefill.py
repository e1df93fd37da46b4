"""Every architecture's forward as tasks on two streams, in the order of its own text in pipeline/models.

`start` puts a collective on the communication stream behind what was computed so far; `wait` holds
the next kernel back until that collective has ended. Overlap is whatever then comes out.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.projection.hardware import Hardware
from pipeline.projection.operator_costs import Operator, Operators
from pipeline.projection.timeline import Category, Stream, Task, Timeline, schedule


@dataclass(frozen=True)
class Handle:
    """A collective that was started; `task` is None where there is nobody to talk to."""

    task: int | None


class Recorder:
    """Collects one forward's tasks."""

    def __init__(self, operators: Operators, hardware: Hardware, communicate: bool = True) -> None:
        self.operators = operators
        self.hardware = hardware
        self.communicate = communicate and operators.tp_size > 1
        self.tasks: list[Task] = []
        self.layer: int | None = None
        self.collectives = 0
        self.collective_bytes = 0
        self._awaited: list[int] = []
        self._last_kernel: int | None = None

    def run(self, *operators: Operator) -> None:
        """Kernels on the compute stream, one after the other."""
        for operator in operators:
            self._last_kernel = self._add(
                operator.name, operator.category, "compute", operator.seconds(self.hardware), tuple(self._awaited)
            )
            self._awaited = []

    def start(self, message_bytes: int | None = None) -> Handle:
        """An all-reduce of what the last kernel wrote (the residual's width by default)."""
        size = self.operators.message_bytes if message_bytes is None else message_bytes
        if not self.communicate:
            return Handle(None)
        self.collectives += 1
        self.collective_bytes += size
        return self._collective("all_reduce", self.hardware.all_reduce_seconds(size, self.operators.tp_size))

    def gather_logits(self) -> Handle:
        """All-gather of the vocabulary's shards, counted with the head and not as an all-reduce."""
        if not self.communicate:
            return Handle(None)
        seconds = self.hardware.all_gather_seconds(self.operators.logit_bytes, self.operators.tp_size)
        return self._collective("gather_logits", seconds)

    def wait(self, handle: Handle) -> None:
        if handle.task is not None:
            self._awaited.append(handle.task)

    def _collective(self, name: str, seconds: float) -> Handle:
        after = () if self._last_kernel is None else (self._last_kernel,)
        return Handle(self._add(name, "all_reduce", "communication", seconds, after))

    def _add(self, name: str, category: Category, stream: Stream, seconds: float, after: tuple[int, ...]) -> int:
        self.tasks.append(Task(name, category, stream, seconds, after, self.layer))
        return len(self.tasks) - 1

    def attention(self) -> None:
        ops = self.operators
        self.run(ops.norm("ln_1"), ops.qkv(), ops.attention(), ops.out())

    def ffn(self) -> None:
        ops = self.operators
        self.run(ops.norm("ln_2"), ops.up(), ops.gelu(), ops.down())


def _standard(r: Recorder) -> None:
    ops = r.operators
    for r.layer in range(ops.model.n_layer):
        r.attention()
        r.wait(r.start())
        r.run(ops.add("residual"))
        r.ffn()
        r.wait(r.start())
        r.run(ops.add("residual"))


def _parallel(r: Recorder) -> None:
    ops = r.operators
    for r.layer in range(ops.model.n_layer):
        r.attention()
        r.run(ops.up(), ops.gelu(), ops.down(), ops.add("branches"))
        r.wait(r.start())
        r.run(ops.add("residual"))


def _kraken(r: Recorder) -> None:
    """The sum of the previous layer's outputs travels under LN1, QKV, attention and the output projection.

    Two copies, into the collective's buffer and out of it, are what overlapping costs (paper section 4).
    """
    ops = r.operators
    for r.layer in range(ops.model.n_layer):
        if r.layer == 0:
            r.attention()
            r.run(ops.add("residual"))
        else:
            if ops.shape.n_ways > 1:
                r.run(ops.sum_of_ways())
            elif r.communicate:
                r.run(ops.copy("copy_in"))
            ways_sum = r.start()
            r.attention()
            r.wait(ways_sum)
            if r.communicate:
                r.run(ops.copy("copy_out"))
            r.run(ops.add("attention_and_sum"))
        r.ffn()
        r.run(ops.add("residual", terms=2 if r.layer == 0 else 3))
    r.layer = None
    r.run(ops.concat())
    r.wait(r.start(ops.concat_bytes))


def _ladder(r: Recorder) -> None:
    """Each module reads the residual without the module just before it. No copies: nobody else reads the sums."""
    ops = r.operators
    attention, ffn = Handle(None), Handle(None)
    for r.layer in range(ops.model.n_layer):
        if r.layer > 0:
            r.wait(attention)
            r.run(ops.add("residual"))
        r.attention()
        attention = r.start()
        if r.layer > 0:
            r.wait(ffn)
            r.run(ops.add("residual"))
        r.ffn()
        ffn = r.start()
    r.layer = None
    r.wait(attention)
    r.run(ops.add("residual"))
    r.wait(ffn)
    r.run(ops.add("residual"))


def _desync(r: Recorder) -> None:
    ops = r.operators
    for r.layer in range(ops.model.n_layer):
        r.attention()
        r.run(ops.add("residual"))
        r.ffn()
        r.run(ops.add("scaled_residual"))
        if ops.shape.n_ways > 1:
            r.run(ops.sum_of_ways())
        r.wait(r.start())


LAYERS: dict[str, Callable[[Recorder], None]] = {
    "standard": _standard,
    "parallel": _parallel,
    "kraken": _kraken,
    "ladder": _ladder,
    "desync": _desync,
}


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
) -> Prefill:
    """Place one rank's forward; `communicate=False` leaves all collectives out (the bound).

    Raises ConfigError where tp_size does not divide the model.
    """
    recorder = Recorder(Operators(model, batch_size, context, tp_size, dtype), hardware, communicate)
    recorder.run(recorder.operators.embedding())
    LAYERS[model.architecture](recorder)
    recorder.layer = None
    recorder.run(recorder.operators.final_norm(), recorder.operators.lm_head())
    recorder.wait(recorder.gather_logits())
    return Prefill(schedule(recorder.tasks), recorder.collectives, recorder.collective_bytes)
