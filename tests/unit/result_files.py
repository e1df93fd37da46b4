"""Result files from the pipeline's own writers, with synthetic measurements under them."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.benchmark.grid import cells, expand
from pipeline.benchmark.ranks.spec import variants
from pipeline.benchmark.result import one_rank_result, ranks_result
from pipeline.benchmark.ttft import Measured, Resources
from pipeline.compose import compose, model_config
from pipeline.config import Config
from pipeline.config.benchmark import BenchmarkConfig
from pipeline.config.engine import EngineConfig
from pipeline.evaluation import perplexity as scoring
from pipeline.evaluation.superglue import body
from pipeline.export import make
from pipeline.export.folder import FORMAT
from pipeline.models import build_model
from pipeline.projection.grid import project
from pipeline.projection.hardware import Hardware
from pipeline.results import (
    EngineResult,
    PerplexityResult,
    ProjectionResult,
    TasksResult,
    TrainingResult,
    TtftResult,
    write,
)
from pipeline.results.cell import PARTS
from pipeline.results.scores import Outcomes
from pipeline.results.tasks import TaskRecord
from pipeline.training import run as training_run
from pipeline.training.job import TrainingJob
from pipeline.training.log import RunLog

MODELS = ("demo_standard", "demo_parallel", "demo_kraken_4way")
LOSSES = {"demo_standard": 4.10, "demo_parallel": 4.14, "demo_kraken_4way": 4.05}
COMPUTE_MS = {"standard": 12.0, "parallel": 11.0, "kraken": 13.0}  # others: as standard
EXPOSED_MS = {"standard": 8.0, "parallel": 6.0, "kraken": 1.0}
LINKS = ("loopback", "300mbit", "1gbit")
TASKS = {"boolq": "BoolQ", "cb": "CB"}
PROVENANCE = {"config_fingerprint": "0123456789ab", "commit": "unknown", "inputs": {}}
Milliseconds = Callable[[str, str], float]  # architecture, mode -> a round without noise


def milliseconds(architecture: str, mode: str) -> float:
    """A prefill of 128 tokens: compute, and what communication adds to it."""
    compute, exposed = COMPUTE_MS.get(architecture, 12.0), EXPOSED_MS.get(architecture, 4.0)
    return compute + {"overlapped": exposed, "skipped": 0.0, "blocking": exposed + 4.0}[mode]


def settings(root: Path, *overrides: str) -> Config:
    folders = [f"paths.{name}={root / name}" for name in ("results", "engines", "report", "runs")]
    return compose([*folders, "tracking=none", *overrides])


def training(root: Path, model: str, scale: str = "demo", loss_nats: float | None = None) -> TrainingResult:
    """A run of 200 steps, as its log has it."""
    config = settings(root, f"model={model}", f"scale={scale}")
    job = TrainingJob(config.model, config.training, config.cluster, root, root / "runs" / model, "0123456789ab")
    job.run_folder.mkdir(parents=True, exist_ok=True)
    log = RunLog(job.run_folder)
    log.truncate(0)
    layout = {"ranks": 1, "tp_size": 1, "fsdp": False}
    rates = {"learning_rate": 1e-3, "gradient_norm": 1.0, "tokens_per_s": 6700.0, "mfu": None, "memory_bytes": 4e8}
    for step in range(10, 201, 10):
        log.append({"kind": "train", "step": step, "loss_nats": 4 + 4 * math.exp(-step / 40), **rates, **layout})
    log.append({"kind": "sample", "step": 200, "text": "of the"})
    loss = LOSSES[model] if loss_nats is None else loss_nats
    validation = [{"step": 100, "loss_nats": 4.5}, {"step": 200, "loss_nats": loss}]
    state: Any = SimpleNamespace(step=200, skipped=0, tokens=409_600, seconds=70.0, validation=validation)
    data: Any = SimpleNamespace(manifest={"unigram_loss_nats": 6.5})
    return training_run.result(job, state, data, scale)


def perplexity(root: Path, model: str, scale: str = "demo", loss_nats: float | None = None) -> PerplexityResult:
    config = settings(root, f"model={model}", f"scale={scale}")
    loss = LOSSES[model] if loss_nats is None else loss_nats
    manifest = {"splits": {"val": {"text_bytes": 80_000}}, "unigram_loss_nats": 6.5}
    found = scoring.Perplexity(loss, standard_error_nats=0.02, tokens=20_000, windows=80)
    return scoring.make_result(config, build_model(config.model, device="meta", seed=None), manifest, found)


def superglue(root: Path, model: str, scale: str = "demo", data: str = "shipped", shots: int = 3) -> TasksResult:
    """Two tasks of 40 items, compared with the baseline's file where there is one."""
    chosen = [f"model={model}", f"scale={scale}", f"evaluation=superglue_{shots}shot"]
    config = settings(root, *chosen, "evaluation.bootstrap_iters=200")
    generator = np.random.default_rng(MODELS.index(model))
    records = [
        TaskRecord(
            task=task,
            title=title,
            metric="acc",
            version="1.0",
            outcomes=Outcomes((generator.random(40) < 0.5).astype(float), np.arange(40)),
            items="same",
            chance=0.5,
            majority=0.62,
            requests=80,
            truncated=0,
            label=data,
            notes=(),
        )
        for task, title in TASKS.items()
    ]
    source: Any = SimpleNamespace(key=lambda: "0" * 64)
    label: Any = data
    cost = {"seconds": 3.0, "requests": 160, "kept_tasks": 0}
    baseline = None if model == MODELS[0] else root / "results" / scale / MODELS[0] / f"superglue_{shots}shot.json"
    return body.complete(config, source, records, label, cost, baseline)


def ttft(
    root: Path,
    name: str = "ttft_demo",
    scale: str = "demo",
    links: tuple[str, ...] = LINKS,
    crowded: tuple[int, ...] = (4,),
    of: Milliseconds = milliseconds,
    launches: int = 1,
    **changes: Any,
) -> TtftResult:
    """A benchmark over ranks; with the numbers of ranks in `crowded`, ranks exceed cores."""
    benchmark = settings(root, f"benchmark={name}").benchmark.model_copy(update=changes)
    found = [
        measured(benchmark, link, tp_size, tp_size in crowded, of, launches=launches)[index]
        for link in links
        for tp_size in benchmark.tp_sizes
        for index in range(len(cells(benchmark)))
    ]
    return ranks_result(found, [], [], benchmark, scale, root / "results" / scale / "traces" / name)


def one_rank(root: Path, of: Milliseconds = milliseconds, scale: str = "demo", **changes: Any) -> TtftResult:
    """One rank's share, its link modelled."""
    changes = {"contexts": [128], "tp_sizes": [4], "protocol": "one_rank", "name": "ttft_one_rank", **changes}
    benchmark = settings(root, "benchmark=ttft_demo").benchmark.model_copy(update=changes)
    hardware = compose([]).hardware
    found = measured(benchmark, f"modelled {hardware.name}", 4, False, of, is_modelled=True)
    return one_rank_result(found, benchmark, scale, hardware.model_dump(mode="json"))


def measured(
    benchmark: BenchmarkConfig,
    link: str,
    tp_size: int,
    oversubscribed: bool = False,
    of: Milliseconds = milliseconds,
    is_modelled: bool = False,
    rounds: int = 20,
    launches: int = 1,
) -> list[Measured]:
    """What ranks answer for every cell of one size: rounds with noise, some of it common to a round."""
    (models,) = expand(benchmark, model_config)[tp_size]
    shares = Resources("cpu", threads=1, cores=[], oversubscribed=oversubscribed)
    found = []
    for index, cell in enumerate(cells(benchmark)):
        generator = np.random.default_rng(index)
        drift = generator.lognormal(0.0, 0.03, (launches, rounds))  # hits all variants of a round alike
        samples = {
            variant.key: (
                of(variant.architecture, variant.mode)
                * (cell.context / 128)
                * drift
                * generator.lognormal(0.0, 0.01, (launches, rounds))
            ).tolist()
            for variant in variants(models.by_architecture)
            if not (is_modelled and variant.mode == "blocking")
        }
        facts = {"collectives": 8, "bytes": 65_536, "peak_memory_bytes": 12_000_000, "ranks_agree": True}
        result = {
            "samples_ms": samples,
            "device_ms": {},
            "warmup_rounds": 4,
            "seconds": 5.0,
            "details": dict.fromkeys(models.by_architecture, facts),
        }
        instrumented = [] if is_modelled else [dict.fromkeys(models.by_architecture, _forward())] * tp_size
        speed = None if is_modelled else 1e9
        found.append(Measured(models, cell, link, speed, shares, result, instrumented, is_modelled))
    return found


def _forward() -> dict[str, Any]:
    """An instrumented forward: a product, and a collective beside it that arrives later."""
    kinds = dict.fromkeys(PARTS, 0.0) | {"gemm": 6.0, "norm": 1.0, "all_reduce": 3.0}
    segments = [("gemm", "qkv", 0, 6_000_000), ("norm", "ln_1", 6_000_000, 7_000_000)]
    segments += [("all_reduce", "wait", 7_000_000, 10_000_000)]
    return {"kinds_ms": [kinds], "begin_ns": 0, "segments": segments, "collectives": [(500_000, 10_000_000, 65_536)]}


def projection(root: Path, hardware: str = "a100_40gb_nvswitch", **changes: Any) -> ProjectionResult:
    """The first size of the paper's grid at 128 tokens, beside published times."""
    config = settings(root, "benchmark=ttft_paper", f"hardware={hardware}")
    few = {"shapes": config.benchmark.shapes[:1], "contexts": [128], **changes}
    benchmark = config.benchmark.model_copy(update=few)
    published = config.reference if hardware == config.reference.ttft_hardware else None
    device = Hardware.from_config(config.hardware)
    return project(benchmark, device, model_config, published, source=config.hardware.source)


def engine(root: Path, model: str, name: str = "checkpoint", tp_size: int = 4) -> EngineResult:
    """An export of random weights, or what stands for a built engine of its description."""
    given = {"name": name, "tp_size": tp_size, "weights": "random"}
    folder = root / "engines" / f"{model}-tp{tp_size}-{name}"
    asked = EngineConfig.model_validate(given)
    return make.make(model_config(model), asked, root, folder, lambda line: None, scale="demo").result


def built_engine(model: str, scale: str = "demo", **changes: Any) -> EngineResult:
    """engine.json of a TensorRT engine of four ranks, which needs GPUs to be built for real."""
    shape = model_config(model)
    known: dict[str, Any] = {
        "kind": "measured",
        "model": model,
        "architecture": shape.architecture,
        "scale": scale,
        "engine": "tensorrt",
        "ranks": 4,
        "collectives": 8,
        "module": "tensorrt",
        "version": "11.0",
        "target": "sm80",
        "mode": "segmented",
        "dtype": "float16",
        "head_dim": 64,
        "weights": "random",
        "status": "built, not run",
        "engine_format": FORMAT,
        "key": "k",
        "spec": {"model": {"name": model, **shape.identity()}},
        "sizes": {},
        "size_bytes": 5_000_000,
        "build_s": 3.2,
    }
    return EngineResult(**{**known, **changes})


def write_all(root: Path, scale: str = "demo") -> None:
    """A whole run's results under root/results and root/engines, the baseline's first."""
    results = root / "results" / scale
    for model in MODELS:
        write(results / model / "training.json", training(root, model, scale), PROVENANCE)
        write(results / model / "perplexity.json", perplexity(root, model, scale), PROVENANCE)
        write(results / model / "superglue_3shot.json", superglue(root, model, scale), PROVENANCE)
        engine = built_engine(model, scale)
        write(root / "engines" / f"{model}-tp4-tensorrt" / "engine.json", engine, PROVENANCE)
    write(results / "ttft-ttft_demo.json", ttft(root, scale=scale), PROVENANCE)
