"""Communicators that need no second process, and models whose weights share their memory."""

import contextlib
import itertools
import time

import pytest
import torch

from pipeline.benchmark.ranks.spans import SpanCommunicator, SpanRecorder, watched
from pipeline.communication import BlockingCommunicator, CountingCommunicator, Done, LocalCommunicator
from pipeline.communication.modelled import ModelledCommunicator
from pipeline.engines.arena import arena_size, build_on_arena, make_arena
from pipeline.engines.torch import TorchEngine
from pipeline.models import Placement, build_model
from pipeline.results.cell import PARTS
from tests.unit.test_models import TOKENS, config, perturbed


class Recording:
    """A communicator whose sums arrive only when they are awaited, and which remembers the order of events."""

    world_size = 2

    def __init__(self):
        self.events = []

    def start(self, x):
        number = sum(1 for kind, _ in self.events if kind == "start")
        self.events.append(("start", number))
        recording = self

        class Pending:
            def wait(self):
                recording.events.append(("wait", number))
                return x

        return Pending()


def events_of(architecture, n_ways=1, wrap=lambda communicator: communicator):
    recording = Recording()
    build_model(config(architecture, n_ways, n_layer=3))(torch.tensor([TOKENS]), wrap(recording))
    return recording.events


def most_in_flight(events):
    flying, most = 0, 0
    for kind, _ in events:
        flying += 1 if kind == "start" else -1
        most = max(most, flying)
    return most


def test_ladder_has_two_sums_on_their_way_and_standard_one():
    assert most_in_flight(events_of("ladder")) == 2
    assert most_in_flight(events_of("standard")) == 1
    assert most_in_flight(events_of("ladder", wrap=BlockingCommunicator)) == 1


@pytest.mark.parametrize(("architecture", "n_ways"), [("kraken", 2), ("ladder", 1), ("parallel", 1), ("desync", 2)])
def test_every_sum_that_is_started_is_awaited_once_and_in_order(architecture, n_ways):
    events = events_of(architecture, n_ways)
    started = [number for kind, number in events if kind == "start"]
    awaited = [number for kind, number in events if kind == "wait"]
    assert started == awaited == sorted(started)


def test_kraken_computes_attention_between_start_and_wait():
    """The order that the overlap rests on, seen from the outside: start, QKV, wait, FFN."""
    model = build_model(config("kraken", 2, n_layer=2))
    order = []
    recording = Recording()
    block = model.blocks[1]
    for name in ("attn.qkv", "attn.out", "mlp.up"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: recording.events.append(("run", name)))
    model(torch.tensor([TOKENS]), recording)
    order = [kind if kind != "run" else name for kind, name in recording.events]
    assert order[:5] == ["start", "attn.qkv", "attn.out", "wait", "mlp.up"]


def test_the_modelled_link_takes_its_time_beside_the_computation():
    link = ModelledCommunicator(4, lambda size: 0.05)
    begun = time.perf_counter()
    first, second = link.start(torch.ones(3)), link.start(torch.ones(3))
    time.sleep(0.05)  # what the computation takes
    first.wait()
    assert time.perf_counter() - begun < 0.095  # hidden, not added up to 0.1
    second.wait()
    assert time.perf_counter() - begun >= 0.1  # one link: the second begins when the first has arrived


def test_segments_never_overlap_and_add_up_to_the_forward():
    engine = TorchEngine(perturbed(config("kraken", 2)))
    recorder = SpanRecorder()
    spans = SpanCommunicator(Recording(), recorder)
    engine.communicator = spans
    tokens = torch.tensor([TOKENS])
    with watched(engine.model, recorder, spans), recorder.span("other", "rest"):
        engine.prefill(tokens)
    segments = recorder.segments()
    for before, after in itertools.pairwise(segments):
        assert before.end_ns <= after.begin_ns
    kinds = recorder.milliseconds_by_kind()
    assert set(kinds) == set(PARTS)
    assert sum(kinds.values()) == pytest.approx((segments[-1].end_ns - segments[0].begin_ns) / 1e6, rel=1e-6)
    assert {part for part in PARTS if not kinds[part]} == {"elementwise"}  # a stopwatch counts it as `other`
    assert {s.name for s in segments if s.kind == "overlapped_gemm"} == {
        f"blocks.{layer}.attn.{part}" for layer in (1, 2) for part in ("qkv", "out")
    }
    engine.communicator = LocalCommunicator()
    assert not engine.model.blocks[0].attn.qkv._forward_hooks  # nothing of the stopwatch stays on the model


def test_counting_counts_calls_and_bytes():
    counting = CountingCommunicator(LocalCommunicator())
    assert isinstance(counting.start(torch.zeros(2, 3)), Done)
    counting.start(torch.zeros(4, dtype=torch.float16))
    assert (counting.collectives, counting.bytes) == (2, 24 + 8)


@pytest.mark.parametrize(("architecture", "n_ways"), [("standard", 1), ("kraken", 4)])
def test_an_arena_holds_a_whole_shard_and_runs_it(architecture, n_ways):
    shape, placement = config(architecture, n_ways), Placement(1, 4)
    size = arena_size(shape, placement)
    arena = make_arena(size, shape.init_std, 7, "cpu", torch.float32)
    model = build_on_arena(shape, placement, arena)
    own = build_model(shape, placement)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in own.named_parameters()}
    assert model.wte.weight.untyped_storage().data_ptr() == arena.untyped_storage().data_ptr()
    assert torch.isfinite(model(torch.tensor([TOKENS]))).all()
    with pytest.raises(ValueError, match="needs more than"):
        build_on_arena(shape, placement, arena[: size // 2])


def test_decoding_gives_the_tokens_that_prefilling_everything_gives():
    model = perturbed(config("kraken", 2))
    engine = TorchEngine(model)
    with pytest.raises(ValueError, match="keep_cache"):
        engine.decode(torch.tensor([1]))
    engine.keep_cache(1, 12)
    sequence = list(TOKENS)
    token = engine.prefill(torch.tensor([sequence]))
    for _ in range(3):
        sequence.append(int(token))
        token = engine.decode(token)
        assert int(token) == int(model(torch.tensor([sequence]))[0, -1].argmax())


class Clocked:
    """A GPU whose clock falls to half when a spin was the last thing it ran."""

    def __init__(self, monkeypatch):
        from pipeline.communication import stream

        self.now_s, self.hot, self.spins = 0.0, False, 0
        monkeypatch.setattr(stream, "_spin", self.spin)
        monkeypatch.setattr(stream, "_work", self.work)
        monkeypatch.setattr(stream, "HOT_S", 0.0)
        monkeypatch.setattr(stream, "new_event", lambda: Instant(self))
        monkeypatch.setattr(stream, "milliseconds_between", lambda begin, end: (end.at_s - begin.at_s) * 1e3)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)

    def spin(self, cycles):
        self.now_s += cycles / (2e9 if self.hot else 1e9)
        self.hot, self.spins = False, self.spins + 1

    def work(self, x):
        self.hot = True


class Instant:
    def __init__(self, gpu):
        self.gpu, self.at_s = gpu, 0.0

    def record(self):
        self.at_s = self.gpu.now_s


def test_the_spins_rate_is_that_of_a_gpu_at_work(monkeypatch):
    from pipeline.communication import stream

    gpu = Clocked(monkeypatch)
    monkeypatch.setattr(stream, "SIDE", 2)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    assert stream.spin_cycles_per_second(torch.device("cpu")) == pytest.approx(2e9)
    assert gpu.spins == 1 + stream.ROUNDS


@pytest.mark.gpu
def test_a_modelled_sum_is_a_kernel_that_spins():
    from torch.profiler import ProfilerActivity, profile

    from pipeline.communication import stream

    device = torch.device("cuda", 0)
    communicator = stream.modelled_communicator(8, lambda size: 1e-3, device)
    x = torch.ones(1024, 1024, device=device)
    communicator.start(x).wait()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        communicator.start(x).wait()
        torch.cuda.synchronize()
    assert any("spin" in event.name for event in seen.events())


@pytest.mark.gpu
def test_one_cuda_graph_holds_the_whole_prefill_with_its_side_stream():
    from pipeline.communication.stream import modelled_communicator

    device = torch.device("cuda", 0)
    shape = config("kraken", 2, n_layer=4)
    for architecture in (shape, config("ladder", n_layer=4), config("desync", 2, n_layer=4)):
        communicator = modelled_communicator(2, lambda size: 1e-4, device)
        engine = TorchEngine(build_model(architecture, Placement(0, 2), device=device), communicator)
        tokens = torch.tensor([TOKENS], device=device)
        eager = engine.prefill(tokens)
        engine.capture(tokens, "modelled")
        assert torch.equal(engine.prefill(tokens), eager)


@pytest.mark.gpu
def test_the_modelled_kernel_takes_the_stated_time_on_the_side_stream():
    from pipeline.communication.clock import milliseconds_between, new_event
    from pipeline.communication.stream import modelled_communicator

    communicator = modelled_communicator(8, lambda size: 5e-3, torch.device("cuda", 0))
    x = torch.ones(1024, 1024, device="cuda")
    communicator.start(x).wait()
    begin, end = new_event(), new_event()
    begin.record()
    communicator.start(x).wait()
    end.record()
    assert milliseconds_between(begin, end) == pytest.approx(5.0, rel=0.1)
