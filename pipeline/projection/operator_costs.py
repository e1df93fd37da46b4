"""What one rank's operators cost from prompt to first token: FLOPs, bytes, and seconds by the roofline."""

from dataclasses import dataclass

from pipeline.config.model import ModelConfig
from pipeline.models.count import BYTES
from pipeline.models.placement import LocalShape, Placement, local_shape
from pipeline.projection.hardware import Hardware
from pipeline.projection.timeline import Category


@dataclass(frozen=True)
class Operator:
    """One kernel: its FLOPs and the bytes it moves to and from device memory."""

    name: str
    category: Category
    flops: float
    moved_bytes: float

    def seconds(self, hardware: Hardware) -> float:
        return hardware.kernel_seconds(self.flops, self.moved_bytes)


class Operators:
    """The kernels of one rank for a prompt of `batch_size` × `context` tokens.

    W ways that share a rank run as one batched kernel. The head reads one token a prompt; its
    vocabulary is cut over the ranks, as TensorRT-LLM does, and its logits are gathered.
    """

    def __init__(self, model: ModelConfig, batch_size: int, context: int, tp_size: int, dtype: str) -> None:
        self.model = model
        self.batch_size = batch_size
        self.context = context
        self.tp_size = tp_size
        self.tokens = batch_size * context
        self.item = BYTES[dtype]
        self.shape: LocalShape = local_shape(model, Placement(0, tp_size))
        self.heads_width = self.shape.n_head * self.shape.head_dim

    def _gemm(self, name: str, n_in: int, n_out: int, rows: int | None = None) -> Operator:
        m, ways = rows or self.tokens, self.shape.n_ways
        moved = m * n_in + n_in * n_out + m * n_out
        return Operator(name, "gemm", 2.0 * ways * m * n_in * n_out, float(self.item * ways * moved))

    def _stream(self, name: str, category: Category, passes: int, width: int, ways: int | None = None) -> Operator:
        """A kernel that reads and writes (ways, B, T, width) `passes` times in all."""
        count = self.shape.n_ways if ways is None else ways
        return Operator(name, category, 0.0, float(passes * self.item * count * self.tokens * width))

    def embedding(self) -> Operator:
        return self._stream("embedding", "elementwise", 3, self.model.n_embd, ways=1)  # two rows read, one written

    def norm(self, name: str) -> Operator:
        return self._stream(name, "norm", 2, self.model.n_embd)

    def qkv(self) -> Operator:
        return self._gemm("qkv", self.model.n_embd, 3 * self.heads_width)

    def attention(self) -> Operator:
        """Fused causal attention: half of the T² scores, each used twice; q, k, v in, one tensor out."""
        pairs = self.batch_size * self.context * self.context / 2
        flops = 4.0 * self.shape.n_ways * pairs * self.heads_width
        moved = 4 * self.item * self.shape.n_ways * self.tokens * self.heads_width
        return Operator("attention", "attention", flops, float(moved))

    def out(self) -> Operator:
        return self._gemm("out", self.heads_width, self.model.n_embd)

    def up(self) -> Operator:
        return self._gemm("up", self.model.n_embd, self.shape.ffn_dim)

    def gelu(self) -> Operator:
        return self._stream("gelu", "elementwise", 2, self.shape.ffn_dim)

    def down(self) -> Operator:
        return self._gemm("down", self.shape.ffn_dim, self.model.n_embd)

    def add(self, name: str, terms: int = 2) -> Operator:
        return self._stream(name, "elementwise", terms + 1, self.model.n_embd)

    def copy(self, name: str) -> Operator:
        return self._stream(name, "elementwise", 2, self.model.n_embd, ways=1)

    def sum_of_ways(self) -> Operator:
        """The local part of a sum over ways: W streams in, one out."""
        return self._stream("sum_of_ways", "elementwise", self.shape.n_ways + 1, self.model.n_embd, ways=1)

    def concat(self) -> Operator:
        """Kraken's W_concat on the last token of each prompt."""
        return self._gemm("concat", self.model.n_embd, self.model.n_embd, rows=self.batch_size)

    def lm_head(self) -> Operator:
        d, rows, columns = self.model.n_embd, self.batch_size, self.model.vocab_size / self.tp_size
        moved = self.item * (rows * d + d * columns + rows * columns)
        return Operator("lm_head", "lm_head", 2.0 * rows * d * columns, float(moved))

    def final_norm(self) -> Operator:
        moved = 2 * self.item * self.batch_size * self.model.n_embd
        return Operator("ln_f", "norm", 0.0, float(moved))

    @property
    def message_bytes(self) -> int:
        """What one all-reduce of the residual's width carries."""
        return self.item * self.tokens * self.model.n_embd

    @property
    def concat_bytes(self) -> int:
        return self.item * self.batch_size * self.model.n_embd

    @property
    def logit_bytes(self) -> float:
        """One rank's share of the logits."""
        return self.item * self.batch_size * self.model.vocab_size / self.tp_size
