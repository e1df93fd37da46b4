"""Sums rounded for the wire over real ranks: the same bits everywhere, the bytes they say, errors as they are."""

from statistics import median

import pytest
import torch

from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.wire_errors import wire_error_row
from pipeline.communication.wire import WIRES
from tests.integration.test_ttft_ranks import RULES, TOKENS, spec
from tests.unit.test_models import config

pytestmark = pytest.mark.slow
LAYERS = 2
SHAPES = {"standard": config("standard", 1, n_layer=LAYERS), "kraken": config("kraken", 4, n_layer=LAYERS)}
LABELS = {f"{name}{suffix}": shape for name, shape in SHAPES.items() for suffix in ("", "_bfloat16", "_int8")}
OFF_AT_MOST = {"bfloat16": 0.03, "int8": 0.1}  # of the logits' size


@pytest.mark.parametrize(("tp_size", "transport"), [(2, "socket"), (2, "gloo"), (4, "gloo")])
def test_ranks_agree_bit_for_bit_whatever_the_wire(tmp_path, tp_size, transport):
    with (
        make_links(["loopback"], tp_size) as links,
        RankGroup(spec(tp_size, tmp_path, transport=transport), links, 60) as ranks,
    ):
        raw = {name: shape.model_dump(mode="json") for name, shape in LABELS.items()}
        ranks.command("load", models=raw, folders={})
        for name in raw:
            ranks.command("logits", architecture=name, tokens=TOKENS, path=str(tmp_path / name))
        for name in ("kraken", *(f"kraken_{wire}" for wire in OFF_AT_MOST)):
            for index, one in enumerate(TOKENS):  # each by itself, as windows are read: blocks of int8 end with them
                ranks.command("logits", architecture=name, tokens=[one], path=str(tmp_path / f"{name}-{index}"))
        windows = [[*TOKENS[0], 3], [*TOKENS[1], 5]]
        errors = ranks.command("wire_errors", architecture="kraken", windows=windows, wires=["bfloat16", "int8"])
        measured = ranks.command("measure", context=12, batch_size=2, rules=RULES)[0]
    logits = {name: [torch.load(tmp_path / f"{name}.{rank}") for rank in range(tp_size)] for name in raw}
    for name, (first, *others) in logits.items():
        assert all(torch.equal(first, other) for other in others), name
    for name in SHAPES:
        plain = logits[name][0].double()
        for wire, most in OFF_AT_MOST.items():
            off = (logits[f"{name}_{wire}"][0] - plain).square().mean().sqrt() / plain.square().mean().sqrt()
            assert 0 < off < most
    # bytes that entered: the wire's, of the same sums
    details = measured["details"]
    for name in SHAPES:
        assert len({details[label]["collectives"] for label in raw if label.startswith(name)}) == 1
        assert details[f"{name}_bfloat16"]["bytes"] * 2 == details[name]["bytes"]
        assert details[name]["bytes"] / 4 < details[f"{name}_int8"]["bytes"] < details[name]["bytes"] / 3
    # what a wire does not change is timed once
    assert {key for key in measured["samples_ms"] if key.endswith("/skipped")} == {"standard/skipped", "kraken/skipped"}
    # the errors are those of the logits, computed here anew
    assert errors[0] == errors[-1]
    about = {"architecture": "kraken", "model": "m", "size": "s", "tp_size": tp_size, "transport": transport}
    for wire in OFF_AT_MOST:
        row = wire_error_row(about | {"weights": "trained"}, wire, errors[0][wire], errors[0]["float32"])
        plain, other = (
            torch.cat([torch.load(tmp_path / f"{name}-{index}.0") for index in range(2)]).double()
            for name in ("kraken", f"kraken_{wire}")
        )
        assert row.largest_logit_difference == pytest.approx(float((other - plain).abs().max()), rel=1e-4)
        assert row.relative_error == pytest.approx(float((other - plain).norm() / plain.norm()), rel=1e-4)
        targets = torch.tensor([window[1:] for window in windows])
        loss = [torch.nn.functional.cross_entropy(one.flatten(0, 1), targets.flatten()) for one in (other, plain)]
        assert row.loss_nats == pytest.approx(float(loss[0]), rel=1e-6)
        assert row.loss_nats_float32 == pytest.approx(float(loss[1]), rel=1e-6)
        assert row.loss_difference_nats == pytest.approx(row.loss_nats - row.loss_nats_float32)
        same = (plain.argmax(-1) == other.argmax(-1)).float().mean()
        assert row.top1_agreement == pytest.approx(float(same))
        assert row.tokens == 24 and row.windows == 2
        assert (
            wire_error_row(about | {"weights": "random"}, wire, errors[0][wire], errors[0]["float32"]).perplexity
            is None
        )


def test_a_modelled_delay_is_paid_by_every_sum_that_nothing_hides(tmp_path):
    delay_s = 0.02
    with (
        make_links(["loopback"], 2) as links,
        RankGroup(spec(2, tmp_path, transport="socket"), links, 60) as ranks,
    ):
        raw = {name: SHAPES[name].model_dump(mode="json") for name in SHAPES}
        ranks.command("load", models=raw, folders={})

        def medians():
            found = ranks.command("measure", context=12, batch_size=2, rules=RULES)[0]
            assert all(one["ranks_agree"] for one in found["details"].values())
            return {key: median(samples) for key, samples in found["samples_ms"].items()}

        ranks.command("delay", delay_s=delay_s, bits_per_s=None)
        delayed = medians()
        ranks.command("delay", delay_s=0.0, bits_per_s=None)
        plain = medians()
    sums = 2 * LAYERS + 1  # the token's gather pays as well
    assert delayed["standard/overlapped"] >= 1e3 * delay_s * sums
    assert plain["standard/overlapped"] < delayed["standard/overlapped"] - 0.6e3 * delay_s * sums
    assert delayed["standard/skipped"] < 1e3 * delay_s


def test_wires_by_name_are_those_of_the_configuration():
    from pipeline.config.benchmark import WIRES as CONFIGURED

    assert tuple(WIRES) == CONFIGURED
