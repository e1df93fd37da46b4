"""Counts against sums done by hand, and the parameter budget."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pipeline.communication import SkippedCommunicator
from pipeline.compose import model_config
from pipeline.config import ModelConfig
from pipeline.errors import ConfigError
from pipeline.models import architectures, build_model, count
from pipeline.models.budget import solve_flops, solve_width
from pipeline.models.placement import Placement
from pipeline.models.trace import trace


def test_gpt2_has_gpt2s_parameters():
    shape = model_config("standard_124m")
    d, layers = 768, 12
    assert count.parameters(shape) == 50304 * d + 1024 * d + layers * (12 * d * d + 2 * d) + d


@pytest.mark.parametrize(
    "name", ["demo_standard", "demo_parallel", "demo_kraken_4way", "demo_ladder", "demo_desync_4way"]
)
def test_matrix_flops_are_what_pytorch_counts(name):
    shape = model_config(name)
    model = build_model(shape)
    tokens = torch.zeros(1, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(tokens)
    products = sum(
        flops for op, flops in counter.get_flop_counts()["Global"].items() if "mm" in str(op)
    )  # attention is counted apart
    ours = 64 * (2 * count.matrix_parameters(shape) + 2 * shape.n_embd * shape.vocab_size)
    assert products == ours


@pytest.mark.parametrize("name", architectures.names())
def test_a_prefills_flops_are_what_pytorch_counts(name):
    """torch counts attention's scores whole; half of them are of positions that come later."""
    ways = 1 if architectures.block_of(name).ways == "none" else 4
    shape = ModelConfig(
        name=name, architecture=name, n_layer=3, n_head=4, n_embd=32, n_ways=ways, block_size=64, vocab_size=96
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_model(shape)(torch.zeros(1, 64, dtype=torch.long), last_only=True)
    counted = counter.get_flop_counts()["Global"]
    products = sum(flops for op, flops in counted.items() if "mm" in str(op))
    traced = trace(shape, 1, 1, 64)
    assert sum(kernel.flops for kernel in traced.kernels if kernel.category != "attention") == products
    assert count.prefill_flops(shape, 1, 64) == products + count.attention_flops(shape, 64) * 64 // 2


def test_ranks_share_the_matrices():
    for name in ("demo_standard", "demo_kraken_4way"):
        shape = model_config(name)
        parts = [count.matrix_parameters(shape, Placement(rank, 4)) for rank in range(4)]
        assert sum(parts) == count.matrix_parameters(shape)


def test_collectives_are_the_papers():
    expected = {
        "standard_124m": (24, 24),
        "parallel_124m": (12, 12),
        "kraken_124m_4way": (12, 1),
        "ladder_124m": (24, 1),  # the last attention's sum still has the last FFN to hide under
        "desync_124m_4way": (12, 12),
    }
    for name, (total, blocking) in expected.items():
        counted = count.collectives(model_config(name))
        assert (counted.total, counted.blocking) == (total, blocking), name


def test_collective_bytes_by_hand():
    shape = model_config("kraken_124m_4way")
    assert count.prefill_collective_bytes(shape, 2, 128) == 2 * (10 * 128 + 2) * 504 * 2  # last layer and W_concat: one
    assert count.prefill_collective_bytes(model_config("standard_124m"), 1, 128) == (22 * 128 + 2) * 768 * 2
    ladder = count.prefill_collective_bytes(model_config("ladder_124m"), 1, 128)
    assert ladder == (21 * 128 + 3) * 768 * 2  # no attention reads the last FFN's sum but one either


def test_kv_cache_grows_by_the_papers_factor():
    """Root of 1.5·N at equal layer parameters (paper facts, section 1): 1.73 for 2 ways, 2.45 for 4."""
    standard = count.kv_bytes_per_token(model_config("standard_124m"))
    for ways, factor in ((2, 1.73), (4, 2.45), (6, 3.0)):
        kraken = count.kv_bytes_per_token(model_config(f"kraken_124m_{ways}way"))
        assert kraken / standard == pytest.approx(factor, rel=0.1)


def test_the_budget_finds_the_papers_widths():
    for ways, heads, width in ((2, 6, 678), (4, 3, 504), (6, 2, 418)):
        exact = model_config(f"kraken_124m_{ways}way")
        assert solve_width(exact, count.parameters(exact), heads).n_embd == width
        assert solve_width(exact, count.layer_parameters(exact), heads, counts="layers").n_embd == width


@pytest.mark.parametrize("counts", ["all", "layers"])
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"position": "none"}], ids=str)
@pytest.mark.parametrize("name", ["demo_standard", "demo_kraken_4way", "demo_desync_4way"])
def test_a_width_is_the_nearest_of_its_template(name, changes, counts):
    template = model_config(name).model_copy(update=changes)
    heads = template.heads_per_way
    found = solve_width(template, 3_000_000, heads, head_multiple=2, counts=counts)
    step = 2 * (heads if template.architecture == "kraken" else template.n_head)
    assert found.head_dim % 2 == 0

    def counted(width: int) -> int:
        model = build_model(template.model_copy(update={"n_embd": width}), seed=None, device="meta")
        tables = ("wte", "wpe", "lm_head") if counts == "layers" else ()
        return sum(one.numel() for key, one in model.named_parameters() if key.split(".")[0] not in tables)

    assert found.parameters == counted(found.n_embd)
    near = range(max(step, found.n_embd - 3 * step), found.n_embd + 4 * step, step)
    nearest = min(near, key=lambda width: abs(counted(width) - 3_000_000))
    assert found.n_embd == nearest


def test_a_template_that_cannot_be_built_has_no_width():
    template = model_config("demo_standard").model_copy(update={"n_ways": 2})
    with pytest.raises(ConfigError, match="n_ways=2: a standard model has one way"):
        solve_width(template, 10**6, 4)
    with pytest.raises(ConfigError, match="parameters=10: too few"):
        solve_width(model_config("demo_standard"), 10, 4)


def rank_flops(model: ModelConfig, tp_size: int, context: int) -> float:
    """What PyTorch counts of one rank's prefill on meta tensors; of attention, which it counts whole, half."""
    build = build_model(model, Placement(0, tp_size), seed=None, device="meta")
    tokens = torch.zeros(1, context, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build.hidden(tokens, SkippedCommunicator(tp_size), last_only=True)
    counted = counter.get_flop_counts()["Global"]
    return sum(flops if "mm" in str(op) else flops / 2 for op, flops in counted.items())


@pytest.mark.parametrize("tp_size", [2, 4])
def test_a_model_at_equal_flops_is_the_nearest_of_its_width(tp_size):
    """The head is left out of the reference: 0.7% of a rank's FLOPs at most, and nearly alike in both."""
    standard, contexts = model_config("standard_124m"), (128, 256, 512)
    shipped = model_config(f"cpu_kraken_flops_{tp_size}way")
    found = solve_flops(model_config(f"cpu_kraken_{tp_size}way"), standard, tp_size, contexts)
    assert found.identity() == shipped.identity()
    goal = {context: rank_flops(standard, tp_size, context) for context in contexts}

    def worst(width: int) -> float:
        model = found.model_copy(update={"n_embd": width})
        return max(abs(rank_flops(model, tp_size, context) / goal[context] - 1) for context in contexts)

    assert worst(found.n_embd) < 0.01
    assert worst(found.n_embd) < min(worst(found.n_embd - 8), worst(found.n_embd + 8))


def test_flops_are_solved_for_ways_of_their_own_width_alone():
    with pytest.raises(ConfigError, match="architecture=desync: its ways have no width of their own"):
        solve_flops(model_config("demo_desync_4way"), model_config("demo_standard"), 4, [128])
    with pytest.raises(ConfigError, match="tp_size=3: must divide the 4 heads"):
        solve_flops(model_config("demo_kraken_6way"), model_config("demo_standard"), 3, [128])


def test_a_head_may_be_narrower_than_its_share_of_the_stream():
    model = build_model(model_config("cpu_kraken_flops_4way"), Placement(1, 4), seed=None, device="meta")
    attention = model.blocks[0].attn
    assert attention.qkv.weight.shape == (1, 576, 3 * 3 * 64) and attention.out.weight.shape == (1, 3 * 64, 576)


def kraken_parameters(n_embd: int, n_layer: int, n_ways: int, vocab_size: int, block_size: int) -> int:
    """V·d + block_size·d + N·L·(8d² + 2d) + N·d² + d (paper facts, section 1)."""
    d = n_embd
    return vocab_size * d + block_size * d + n_ways * n_layer * (8 * d * d + 2 * d) + n_ways * d * d + d


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40), st.integers(1, 16), st.integers(1, 16), st.sampled_from([1, 8, 16]), st.integers(10**7, 10**10)
)
def test_no_neighbouring_width_is_nearer(n_layer, n_ways, heads, multiple, parameters):
    changes = {"n_layer": n_layer, "n_ways": n_ways}
    template = model_config("kraken_124m_4way").model_copy(update=changes)
    try:
        found = solve_width(template, parameters, heads, head_multiple=multiple)
    except ConfigError:
        assert kraken_parameters(heads * multiple, n_layer, n_ways, 50304, 1024) > parameters
        return
    step = heads * multiple
    assert found.n_embd % step == 0
    for other in (found.n_embd - step, found.n_embd + step):
        if other > 0:
            there = kraken_parameters(other, n_layer, n_ways, 50304, 1024)
            assert abs(found.parameters - parameters) <= abs(there - parameters)


def test_the_formula_is_the_model():
    shape = ModelConfig(
        name="x",
        architecture="kraken",
        n_layer=5,
        n_head=6,
        n_ways=3,
        n_embd=40,
        vocab_size=99,
        block_size=17,
        ffn_expansion=2,
    )
    assert count.parameters(shape) == kraken_parameters(40, 5, 3, 99, 17)
