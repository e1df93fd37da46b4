"""The TensorRT networks of all ranks, evaluated by torch, are the pipeline's model."""

import pytest
import torch

from pipeline.export.tensorrt import build, module
from pipeline.export.tensorrt.program import Program, Run, Start, Wait
from pipeline.export.weights import TrainedSource
from pipeline.models import local_shape
from tests.unit.engine_interpreter import interpret, reachable
from tests.unit.engine_models import NAMES, config_of, lively, save, spec_of, tokens

trt = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX wheel for this machine")

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
COLLECTIVES = {
    "standard": lambda n: 2 * n,
    "parallel": lambda n: n,
    "kraken": lambda n: n,
    "ladder": lambda n: 2 * n,
    "parallel_track": lambda n: -(-n // 2),  # the models here meet every second layer, and at the end
    "standard_split": lambda n: 4 * n - 2,  # the last layer's of the second chunk alone
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Architecture -> (model, its folder): made once."""
    made = {}
    for architecture in NAMES:
        model = lively(config_of(architecture))
        made[architecture] = (model, save(tmp_path_factory.mktemp(architecture), model))
    return made


def graphs_of(models, architecture, tp_size, **changes):
    model, folder = models[architecture]
    spec = spec_of(model.config, tp_size, **changes)
    source = TrainedSource(folder, model.config)
    return [build.write_networks(trt, spec, source, rank).graph for rank in range(tp_size)]


def logits_of(held):  # of every rank (B, n, V / N) -> (B, n, V)
    """The whole vocabulary's logits from every rank's share."""
    return torch.cat([one["logits"] for one in held], dim=-1)


def inputs(wanted):
    found = tokens()
    return {
        "tokens": found.int(),
        "positions": torch.arange(found.shape[1], dtype=torch.int32),
        "wanted": torch.tensor(wanted, dtype=torch.int32),
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("architecture", NAMES)
def test_logits_are_the_models(models, architecture, tp_size, dtype):
    model, _ = models[architecture]
    graphs = graphs_of(models, architecture, tp_size, dtype=dtype)
    everywhere = list(range(tokens().shape[1]))
    found = interpret(trt, graphs, inputs(everywhere))
    with torch.no_grad():
        expected = model(tokens())  # (B, T, V)
    if architecture == "standard_split":  # reads chunks: its last position, whatever is wanted
        expected = expected[:, -1:]
    assert expected.std() > 0.5  # logits that a wrong network would miss by much more than the tolerance
    logits = logits_of(found)
    assert logits.dtype == getattr(torch, dtype)
    assert logits.shape == expected.shape
    assert (logits.float() - expected).abs().max() < TOLERANCE[dtype]
    assert [one["logits"].shape[-1] for one in found] == {1: [301], 2: [151, 150], 4: [76, 75, 75, 75]}[tp_size]


@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("architecture", NAMES)
def test_segments_compose_to_the_whole(models, architecture, tp_size):
    whole = interpret(trt, graphs_of(models, architecture, tp_size), inputs([10]))
    parts = graphs_of(models, architecture, tp_size, mode="segmented")
    assert len(parts[0].segments) >= 2 * models[architecture][0].config.n_layer
    for one, other in zip(whole, interpret(trt, parts, inputs([10])), strict=True):
        assert torch.allclose(one["logits"], other["logits"], atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "mean", "position": "none"},
        {"mixing": "none", "tie_embeddings": False},
        {"mixing": "residual", "mixes_first_layer": True},
    ],
    ids=str,
)
def test_what_an_ablation_sets_is_in_the_network(changes, tmp_path):
    model = lively(config_of("kraken", **changes))
    models = {"kraken": (model, save(tmp_path, model))}
    with torch.no_grad():
        expected = model(tokens())[:, -1]
    for tp_size, mode in ((1, "whole"), (2, "whole"), (2, "segmented"), (4, "segmented")):
        graphs = graphs_of(models, "kraken", tp_size, mode=mode)
        logits = logits_of(interpret(trt, graphs, inputs([10])))
        assert (logits[:, 0] - expected).abs().max() < TOLERANCE["float32"]


@pytest.mark.parametrize("architecture", COLLECTIVES)
def test_collectives_are_as_many_as_the_paper_counts(models, architecture):
    n_layer = models[architecture][0].config.n_layer
    graph = graphs_of(models, architecture, 4)[0]
    network = graph.segments[0].network
    found = [
        network.get_layer(i).name
        for i in range(network.num_layers)
        if network.get_layer(i).type == trt.LayerType.DIST_COLLECTIVE
    ]
    assert len(found) == graph.collectives == COLLECTIVES[architecture](n_layer)
    segmented = graphs_of(models, architecture, 4, mode="segmented")[0]
    starts = [step for step in segmented.program.steps if isinstance(step, Start)]
    waits = [step for step in segmented.program.steps if isinstance(step, Wait)]
    assert len(starts) == len(waits) == COLLECTIVES[architecture](n_layer)
    alone = graphs_of(models, architecture, 1)[0]
    assert alone.collectives == 0


@pytest.mark.parametrize("tp_size", [2, 4])
def test_no_path_leads_from_krakens_collective_to_the_same_layers_attention(models, tp_size):
    network = graphs_of(models, "kraken", tp_size)[0].segments[0].network
    n_layer = models["kraken"][0].config.n_layer
    for layer in range(1, n_layer):
        behind = reachable(network, f"allreduce.layer{layer}.sum1")
        assert not any(name.startswith(f"blocks.{layer}.attn") for name in behind)
        assert not any(name.startswith(f"blocks.{layer}.ln_1") for name in behind)
        assert any(name.startswith(f"blocks.{layer}.mlp") for name in behind)  # it does feed the FFN
        before = reachable(network, f"blocks.{layer}.attn[0]_AttentionInput")
        assert f"allreduce.layer{layer}.sum1" not in before  # nor does it wait for attention


def test_standard_has_such_a_path_so_the_check_can_fail(models):
    network = graphs_of(models, "standard", 4)[0].segments[0].network
    behind = reachable(network, "allreduce.layer1.sum2")
    assert any(name.startswith("blocks.2.attn") for name in behind)


def test_ladders_sums_have_a_module_to_hide_under(models):
    network = graphs_of(models, "ladder", 4)[0].segments[0].network
    for layer in range(models["ladder"][0].config.n_layer - 1):
        attention = reachable(network, f"allreduce.layer{layer}.sum1")
        ffn = reachable(network, f"allreduce.layer{layer}.sum2")
        assert not any(name.startswith(f"blocks.{layer}.mlp") for name in attention)
        assert not any(name.startswith(f"blocks.{layer + 1}.attn") for name in ffn)


def test_segmented_kraken_starts_its_sum_before_attention_and_waits_behind_it(models):
    graph = graphs_of(models, "kraken", 4, mode="segmented")[0]
    names = {number: segment.name for number, segment in enumerate(graph.segments)}
    order = [
        names[step.segment] if isinstance(step, Run) else f"{type(step).__name__} {step.result}"
        for step in graph.program.steps
    ]
    for layer in (1, 2):
        a, b = order.index(f"layer{layer}.a"), order.index(f"layer{layer}.b")
        start, wait = order.index(f"Start layer{layer}.sum1.sum"), order.index(f"Wait layer{layer}.sum1.sum")
        assert start < a < wait < b
    assert Program.read(graph.program.body()) == graph.program


def test_standard_with_biases_adds_each_once(tmp_path):
    model = lively(config_of("standard", bias=True))
    folder = save(tmp_path, model)
    found = graphs_of({"standard": (model, folder)}, "standard", 2)
    with torch.no_grad():
        expected = model(tokens())[:, -1]
    logits = logits_of(interpret(trt, found, inputs([10])))
    assert (logits[:, 0] - expected).abs().max() < 1e-4


def test_head_padding_is_in_the_network_and_changes_nothing(models):
    """86 wide heads computed 96 wide: the same to 1e-5 as computed unpadded."""
    model, folder = models["kraken"]
    spec = spec_of(model.config, 4)
    assert (local_shape(model.config).head_dim, spec.head_dim) == (86, 96)
    source = TrainedSource(folder, model.config)
    padded = [build.write_networks(trt, spec, source, rank).graph for rank in range(4)]
    bare = [
        build.write_networks(trt, spec.__class__(**{**spec.__dict__, "head_dim": 86}), source, rank).graph
        for rank in range(4)
    ]
    one, other = (logits_of(interpret(trt, graphs, inputs([10]))) for graphs in (padded, bare))
    assert (one - other).abs().max() < 1e-5


def test_module_is_found_by_name():
    assert module.load("tensorrt_rtx").__version__ == trt.__version__
