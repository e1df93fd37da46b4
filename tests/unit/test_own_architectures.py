"""What a forward of one's own may do is counted as it is, and what it may not is one message."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import architectures, build_model, count
from pipeline.models.block import Block
from pipeline.models.layers import WayLayerNorm, WayLinear
from pipeline.models.trace import Start, Wait, trace

SHAPE = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 64, "vocab_size": 96}


class Twice(Block):
    """The FFN runs twice."""

    def forward(self, x, communicator, cache=None):
        x = x + communicator.start(self.attn(self.ln_1(x), cache)).wait()
        y = self.mlp(self.ln_2(x))
        return x + communicator.start(self.mlp(y)).wait()


class Late(Block):
    """Waits at once, and uses the sum only after the FFN: nothing is hidden."""

    def forward(self, x, communicator, cache=None):
        attended = communicator.start(self.attn(self.ln_1(x), cache)).wait()
        fed = communicator.start(self.mlp(self.ln_2(x))).wait()
        return x + attended + fed


class Narrow(Block):
    """What travels is a quarter as wide."""

    ways = "own"

    def __init__(self, config, shape, layer):
        super().__init__(config, shape, layer)
        self.narrow = WayLinear(shape.n_ways, config.n_embd, config.n_embd // 4)
        self.widen = WayLinear(shape.n_ways, config.n_embd // 4, config.n_embd)

    def forward(self, x, communicator, cache=None):
        x = x + self.attn(self.ln_1(x), cache)
        pending = communicator.start(self.narrow(x).sum(0, keepdim=True))
        x = x + self.mlp(self.ln_2(x))
        x = x + self.widen(pending.wait())
        return communicator.start(x.sum(0, keepdim=True)).wait() if self.is_last else x


class Sliced(Block):
    """Reads the first position alone."""

    def forward(self, x, communicator, cache=None):
        return x + communicator.start(self.mlp(x[:, :, :1])).wait()


class Failing(Block):
    def forward(self, x, communicator, cache=None):
        raise ValueError("not today")


@pytest.fixture
def model_of(monkeypatch):
    """A model of one of the blocks above."""

    def make(block: type[Block], **changes) -> ModelConfig:
        known = architectures.block_of
        monkeypatch.setattr("pipeline.models.placement.block_of", lambda name: block if name == "own" else known(name))
        monkeypatch.setattr(
            "pipeline.models.transformer.block_of", lambda name: block if name == "own" else known(name)
        )
        monkeypatch.setattr("pipeline.models.initialise.block_of", lambda name: block if name == "own" else known(name))
        trace.cache_clear()
        count._on_meta.cache_clear()
        return ModelConfig(name="own", architecture="own", **{**SHAPE, **changes})

    yield make
    trace.cache_clear()
    count._on_meta.cache_clear()


def flops_by_torch(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 64, dtype=torch.long))
    return sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "mm" in str(op))


def test_a_module_that_runs_twice_is_counted_twice(model_of):
    config = model_of(Twice)
    attention = count.attention_flops(config, 64) * 64 // 2
    assert count.forward_flops_per_token(config, 64) * 64 == flops_by_torch(build_model(config)) + attention


def test_a_wait_stands_where_it_is_written(model_of):
    config = model_of(Late)
    counted = count.collectives(config)
    assert (counted.total, counted.blocking) == (6, 6)
    steps = trace(config, 2, 1, 64).steps
    for index, step in enumerate(steps):
        if isinstance(step, Start):
            assert isinstance(steps[index + 1], Wait) and steps[index + 1].start is step


def test_what_travels_narrow_is_counted_narrow(model_of):
    config = model_of(Narrow, n_ways=2)
    traced = trace(config, 2, 1, 64)
    assert [start.elements for start in traced.starts] == [64 * 8] * 3 + [64 * 32]
    assert count.collectives(config).blocking == 1


@pytest.mark.parametrize(("block", "ways"), [(Twice, 1), (Late, 1), (Narrow, 2)])
def test_a_forward_that_does_not_ask_what_is_needed_is_right(model_of, block, ways):
    """Its last position is read; what it computes beside it is counted."""
    config = model_of(block, n_ways=ways)
    model, tokens = build_model(config), torch.arange(18).reshape(2, 9)
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens, last_only=True), model(tokens)[:, -1:], atol=1e-5, rtol=0)
    assert trace(config, 1, 1, 64).starts[-1].elements == 64 * 32
    for last_only, rows in ((False, 64), (True, 1)):
        head = trace(config, 1, 1, 64, last_only).kernels[-1]
        assert (head.category, head.flops) == ("lm_head", rows * 2 * 32 * 96)


class Half(Block):
    """Narrows what is added, and not what it is added to."""

    def forward(self, x, communicator, cache=None):
        x = x + communicator.start(self.needed(self.attn(self.ln_1(x), cache))).wait()
        return x + communicator.start(self.mlp(self.ln_2(x))).wait()


def test_what_adds_up_must_be_narrowed_alike(model_of):
    with pytest.raises(ConfigError, match="a sum of streams of different shapes"):
        count.collectives(model_of(Half))


@pytest.mark.parametrize(("block", "reason"), [(Sliced, "subscriptable"), (Failing, "not today")])
def test_what_costs_cannot_follow_is_one_message(model_of, block, reason):
    with pytest.raises(ConfigError, match=f"architecture=own: its forward uses what cannot.*{reason}"):
        count.collectives(model_of(block))


class Misnamed(Block):
    def __init__(self, config, shape, layer):
        super().__init__(config, shape, layer)
        self.norm = WayLayerNorm(1, config.n_embd, 1e-5)


def test_a_layer_norm_that_would_be_drawn_at_random_is_one_message(model_of):
    with pytest.raises(ConfigError, match=r"name its LayerNorm blocks\.0\.norm ln_"):
        build_model(model_of(Misnamed))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:\n", "cannot be loaded (SyntaxError"),
        ("import nothing_of_this_name\n", "cannot be loaded (ModuleNotFoundError"),
        ("from pipeline.models.block import Block\nclass A(Block):\n    ways = 'splitt'\n", "ways='splitt' is none of"),
        (
            "from pipeline.models.block import Block\nclass A(Block):\n    weights_of = 'x'\n",
            "weights_of='x' is no arch",
        ),
        ("from pipeline.models.block import Block\n", "defines 0 blocks"),
    ],
)
def test_a_file_that_is_no_architecture_is_one_message(tmp_path, monkeypatch, text, reason):
    (tmp_path / "wrong.py").write_text(text)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    architectures.names.cache_clear()
    try:
        with pytest.raises(ConfigError) as caught:
            architectures.block_of("wrong")
        assert reason in str(caught.value)
    finally:
        monkeypatch.undo()
        architectures.names.cache_clear()
        __import__("sys").modules.pop("pipeline.models.architectures.wrong", None)


def test_nine_sums_a_layer_make_nine_segments_and_more(model_of):
    trt = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX wheel for this machine")
    from pipeline.export.tensorrt import build
    from pipeline.export.weights import RandomSource
    from tests.unit.engine_models import spec_of

    class Nine(Block):
        def forward(self, x: Tensor, communicator, cache=None):
            for _ in range(9):
                x = x + communicator.start(self.mlp(self.ln_2(x))).wait()
            return x

    config = model_of(Nine, n_layer=1)
    for mode, segments in (("whole", 1), ("segmented", 10)):
        spec = spec_of(config, 2, mode=mode)
        assert len(build.write_networks(trt, spec, RandomSource(config), 0).graph.segments) == segments
