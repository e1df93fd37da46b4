"""The settings of a model that an ablation turns: mixing of the ways, positions, the head and the initial scale."""

import itertools
import math
import threading

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from pipeline.communication import CountingCommunicator, LocalCommunicator
from pipeline.communication.differentiable import DifferentiableCommunicator
from pipeline.compose import compose, model_config
from pipeline.config.engine import EngineConfig
from pipeline.errors import CheckpointError, ConfigError
from pipeline.export.make import maker_of
from pipeline.export.spec import EngineSpec
from pipeline.models import Placement, build_model, count, shard_state
from pipeline.models.checkpoint import load_model, read_config, save_model
from pipeline.models.generate import generate
from pipeline.models.huggingface import load_huggingface
from pipeline.models.placement import own_parts, shape_faults
from pipeline.models.shard import rule_of, unshard
from pipeline.models.trace import trace
from pipeline.training.branch import Branch
from pipeline.training.loss import LossModule
from pipeline.training.optimizer import make_optimizer
from tests.unit.test_models import TOKENS, config, perturbed, reference

MIXINGS = [
    {"mixing": "sum"},
    {"mixing": "mean"},
    {"mixing": "none"},
    {"mixing": "residual"},
    {"mixing": "sum", "mixes_first_layer": True},
    {"mixing": "residual", "mixes_first_layer": True},
]
ENDS = [{"position": "none"}, {"tie_embeddings": False}, {"position": "none", "tie_embeddings": False}]
SETTINGS = [config("kraken", 4, **changes) for changes in [*MIXINGS[1:], *ENDS]]


def short(value) -> str | None:
    return "-".join([value.architecture, str(value.n_ways), *own_parts(value)]) if hasattr(value, "n_ways") else None


CASES = [
    *(config("kraken", n_ways, **changes) for n_ways, changes in itertools.product((2, 4), MIXINGS)),
    *(config("kraken", 4, **changes) for changes in ENDS),
    *(config("standard", bias=True, **changes) for changes in ENDS),
    config("parallel", position="none", tie_embeddings=False),
]


@pytest.mark.parametrize("case", CASES, ids=short)
def test_logits_and_gradients_agree_with_the_naive_algorithm(case):
    model = perturbed(case).double()
    logits = model(torch.tensor([TOKENS]))[0]
    expected = reference(model, TOKENS)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    targets = torch.tensor([*TOKENS[1:], 1])
    theirs = torch.autograd.grad(F.cross_entropy(expected, targets), list(model.parameters()))
    LossModule(model)(torch.tensor([[*TOKENS, 1]])).backward()
    for (name, parameter), wanted in zip(model.named_parameters(), theirs, strict=True):
        torch.testing.assert_close(
            parameter.grad, wanted, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_every_setting_is_another_function():
    """Guards the reference too: what two settings share cannot be told apart by comparing each with itself."""
    base = perturbed(config("kraken", 4))
    found = [base(torch.tensor([TOKENS]))]
    for changes in MIXINGS[1:]:
        other = build_model(config("kraken", 4, **changes), seed=None)
        other.load_state_dict(base.state_dict())
        found.append(other(torch.tensor([TOKENS])))
    for one, other in itertools.combinations(found, 2):
        assert (one - other).abs().max() > 0.01


def over_ranks(tp_size: int, work) -> None:
    """`work(rank, communicator)` on a thread a rank, with real sums between them; the first fault is raised here."""
    store, faults = dist.HashStore(), []

    def run(rank: int) -> None:
        try:
            work(rank, DifferentiableCommunicator(dist.ProcessGroupGloo(store, rank, tp_size)))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(tp_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if faults:
        raise faults[0]
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("tp_size", [2, 4])
@pytest.mark.parametrize("case", [*SETTINGS, config("standard", bias=True, **ENDS[2])], ids=short)
def test_ranks_compute_and_learn_what_one_process_does(case, tp_size):
    whole = perturbed(case).double()
    windows = torch.tensor([[*TOKENS, 1], [*TOKENS[::-1], 4]])
    logits = whole(windows[:, :-1]).detach()
    loss = LossModule(whole)(windows)
    loss.backward()
    parts = {}

    def work(rank: int, communicator: DifferentiableCommunicator) -> None:
        part = build_model(case, Placement(rank, tp_size), seed=None).double()
        part.load_state_dict(shard_state(whole.state_dict(), case, part.placement))
        torch.testing.assert_close(part(windows[:, :-1], communicator), logits, atol=1e-9, rtol=0)
        share = LossModule(part, communicator)(windows)
        share.backward()
        parts[rank] = (share.detach(), {name: one.grad for name, one in part.named_parameters()})

    over_ranks(tp_size, work)
    assert sum(share for share, _ in parts.values()).item() == pytest.approx(loss.item(), abs=1e-9)
    for name, parameter in whole.named_parameters():
        grads = [parts[rank][1][name] for rank in range(tp_size)]
        rule = rule_of(name, case)
        found = sum(grads) if rule == "whole" else unshard(name, grads, case)
        torch.testing.assert_close(
            found, parameter.grad, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", SETTINGS, ids=short)
def test_a_cache_and_generation_change_nothing(case):
    model = perturbed(case)
    tokens = torch.tensor([TOKENS, TOKENS[::-1]])
    cache = model.new_cache(batch_size=2)
    parts = [model(tokens[:, a:b], cache=cache) for a, b in ((0, 4), (4, 5), (5, 9))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), atol=2e-5, rtol=1e-5)
    grown = tokens
    for _ in range(3):
        grown = torch.cat([grown, model(grown)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, tokens, 3, temperature=0), grown)


@pytest.mark.parametrize(
    ("changes", "total"),
    [({}, 5), ({"mixing": "mean"}, 5), ({"mixing": "residual"}, 5), ({"mixing": "none"}, 1)]
    + [({"mixing": mixing, "mixes_first_layer": True}, 6) for mixing in ("sum", "residual")],
    ids=str,
)
def test_only_what_mixes_sums_and_only_the_concat_blocks(changes, total):
    case = config("kraken", 4, n_layer=5, **changes)
    counted = count.collectives(case)
    assert (counted.total, counted.blocking, counted.width) == (total, 1, case.n_embd)
    seen = CountingCommunicator(LocalCommunicator())
    build_model(case)(torch.tensor([TOKENS]), seen)
    assert seen.collectives == total
    for tp_size in (2, 4):
        assert len(trace(case, tp_size, 1, 16).starts) == total


@pytest.mark.parametrize("case", SETTINGS, ids=short)
def test_flops_and_parameters_are_those_of_the_model(case):
    model = build_model(case)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 16, dtype=torch.long))
    products = sum(flops for op, flops in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    kernels = trace(case, 1, 1, 16, last_only=False).kernels
    assert sum(kernel.flops for kernel in kernels if kernel.category != "attention") == products
    layers = 4 * 3 * (8 * 24 * 24 + 2 * 24) + 4 * 24 * 24 + 24  # N·L·(8d² + 2d) + N·d² + d
    tables = 64 * 24 * (1 if case.tie_embeddings else 2) + (16 * 24 if case.position == "learned" else 0)
    assert count.parameters(case) == sum(one.numel() for one in model.parameters()) == layers + tables
    assert count.layer_parameters(case) == layers


def test_initial_weights_with_and_without_the_ways_and_the_heads_own():
    for over_ways, branches in ((True, 2 * 6 * 4), (False, 2 * 6)):
        shape = {"n_layer": 6, "n_embd": 64, "vocab_size": 512, "tie_embeddings": False}
        model = build_model(config("kraken", 4, init_over_ways=over_ways, **shape), seed=1)
        for name, parameter in model.named_parameters():
            expected = 0.02 / (math.sqrt(branches) if name.endswith(("attn.out.weight", "mlp.down.weight")) else 1)
            if ".ln_" not in name and not name.startswith("ln_"):
                tolerance = 5 * expected / math.sqrt(2 * parameter.numel())
                assert abs(parameter.std().item() - expected) < tolerance, name
        assert not torch.equal(model.lm_head.weight, model.wte.weight)


def test_the_heads_own_weight_is_decayed():
    case = config("standard", tie_embeddings=False, position="none")
    model = build_model(case)
    decayed, _ = make_optimizer(model, compose([]).training).param_groups
    assert decayed["weight_decay"] > 0 and any(one is model.lm_head.weight for one in decayed["params"])


@pytest.mark.parametrize("case", [SETTINGS[0], SETTINGS[-1]], ids=short)
def test_a_finished_model_comes_back_whole_and_in_parts(case, tmp_path):
    model = perturbed(case)
    save_model(tmp_path, model)
    assert read_config(tmp_path) == case
    assert torch.equal(load_model(tmp_path)(torch.tensor([TOKENS])), model(torch.tensor([TOKENS])))
    for rank in range(2):
        found = load_model(tmp_path, case, Placement(rank, 2)).state_dict()
        for name, tensor in shard_state(model.state_dict(), case, Placement(rank, 2)).items():
            assert torch.equal(found[name], tensor)
    with pytest.raises(CheckpointError, match=r"holds another model than test: .*\(wanted "):
        load_model(tmp_path, config("kraken", 4))


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (config("standard", mixing="mean"), "model.mixing=mean: only kraken models mix ways; sum would be right"),
        (config("ladder", mixes_first_layer=True), "model.mixes_first_layer=true: only kraken .* false would be"),
        (config("desync", 4, init_over_ways=False), "model.init_over_ways=false: only kraken .* true would be right"),
        (
            config("kraken", 4, mixing="none", mixes_first_layer=True),
            "model.mixes_first_layer=true: model.mixing=none mixes in no layer; false would be right",
        ),
        (
            config("kraken", 4, mixing="mean", mixes_first_layer=True),
            "model.mixes_first_layer=true: model.mixing=mean would give the first layer the ",
        ),
    ],
    ids=short,
)
def test_what_makes_no_sense_is_one_fault(case, fault):
    (found,) = shape_faults(case)
    with pytest.raises(ConfigError, match=fault):
        raise ConfigError(found)


def test_the_command_line_says_so():
    with pytest.raises(ConfigError, match=r"model\.mixing=mean: only kraken models mix ways"):
        compose(["model=demo_standard", "model.mixing=mean"])
    assert compose(["model=demo_kraken_4way", "model.mixing=mean"]).model.mixing == "mean"


@pytest.mark.parametrize("case", SETTINGS, ids=short)
@pytest.mark.parametrize("engine", ["checkpoint", "huggingface", "tensorrt_llm"])
def test_exporters_written_by_hand_refuse_what_they_do_not_cover(case, engine):
    tp_size = 1 if engine == "huggingface" else 4
    settings = EngineConfig.model_validate({"name": engine, "tp_size": tp_size})
    with pytest.raises(ConfigError, match=f"has {own_parts(case)[0]}.*engine={engine} does not cover that"):
        maker_of(EngineSpec.of(case, settings), settings)
    torch_engine = EngineConfig.model_validate({"name": "torch"})
    assert maker_of(EngineSpec.of(case, torch_engine), torch_engine).module == "torch"


def test_initial_scales_alone_are_for_every_exporter():
    case = model_config("demo_kraken_4way").model_copy(update={"init_over_ways": False})
    assert own_parts(case) == []
    settings = EngineConfig.model_validate({"name": "checkpoint", "tp_size": 4})
    assert maker_of(EngineSpec.of(case, settings), settings)


def test_a_huggingface_head_that_is_not_tied_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 8, "tie_word_embeddings": false}')
    with pytest.raises(CheckpointError, match="tie_word_embeddings=false"):
        load_huggingface(tmp_path)


def test_a_checkpoint_from_before_these_fields_is_of_a_model_with_their_defaults(tmp_path):
    case, training = config("kraken", 4), compose([]).training
    stored = {name: value for name, value in case.identity().items() if name not in ("mixing", "tie_embeddings")}
    branch = Branch(tmp_path, 1, 0, 10, "a-fingerprint", {}, stored)
    branch.check(case, training)
    with pytest.raises(CheckpointError, match=r"model\.mixing is sum there and mean here"):
        branch.check(config("kraken", 4, mixing="mean"), training)
