"""Time To First Token of engines built beforehand, by the benchmark's own protocol and in its row format.

TensorRT engines run through our own runtime, TensorRT-LLM's through its worker in its own environment. Both need
GPUs, one a rank, and are unrun: every row says so in `verified`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.benchmark.protocol import Rules
from pipeline.benchmark.ranks.bench import random_prompt
from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.benchmark.rows import Series, ttft_row
from pipeline.benchmark.ttft import joined
from pipeline.config.engine import EngineConfig
from pipeline.config.link import LOOPBACK
from pipeline.errors import ConfigError, MissingRequirementError, RunError
from pipeline.export import folder as engine_folder
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt_llm.environment import Environment, check_versions
from pipeline.results.cell import BASELINE
from pipeline.results.engine import EngineResult
from pipeline.results.ttft import RunRow, TtftRow

SEED = 1337
VERIFIED = "written and unverified: run on GPUs here for the first time"


class EngineRanks(RankGroup):
    """Rank processes that hold built engines instead of models."""

    module = "pipeline.benchmark.built.rank"


def time_engines(
    folders: Mapping[str, Path],
    cells: list[tuple[int, int]],
    rules: Rules,
    size: str = "",
    cuda_graph: bool = True,
    timeout_s: float = 120.0,
) -> list[TtftRow]:
    """Rows of TensorRT engines (architecture -> folder) for every (context, batch size) of `cells`.

    Raises ConfigError where the engines do not belong together, MissingRequirementError without a GPU a rank,
    CheckpointError for incomplete engines, RunError where a rank dies.
    """
    engines = _together(folders, "tensorrt")
    first = next(iter(engines.values()))
    tp_size = first.ranks
    check_gpus(tp_size)
    rows: list[TtftRow] = []
    with tempfile.TemporaryDirectory(prefix="engines-") as scratch, make_links([LOOPBACK], tp_size) as links:
        spec = RankSpec(
            tp_size=tp_size,
            store=str(Path(scratch, "store")),
            device="cuda",
            dtype=first.dtype,
            threads=1,
            cores=[],
            transport="gloo",
            interfaces=links.interfaces,
            timeout_s=timeout_s + 60,  # the launcher notices first, and says who
            seed=SEED,
            cuda_graph=cuda_graph,
        )
        with EngineRanks(spec, links, timeout_s) as ranks:
            ranks.command("load", folders={name: str(folder.absolute()) for name, folder in folders.items()})
            for context, batch_size in cells:
                found = ranks.command("measure", context=context, batch_size=batch_size, rules=asdict(rules))[0]
                rows += engine_rows(engines, joined([found]), context, batch_size, size)
    return rows


def time_tensorrt_llm(
    folders: Mapping[str, Path],
    engine: EngineConfig,
    cells: list[tuple[int, int]],
    rules: Rules,
    size: str = "",
) -> list[TtftRow]:
    """Rows of TensorRT-LLM engines, timed one after the other in the environment that `engine` names."""
    engines = _together(folders, "tensorrt_llm")
    environment = Environment.of(engine)
    check_versions(environment.run({"action": "probe"}, []))
    rows: list[TtftRow] = []
    for context, batch_size in cells:
        samples: dict[str, list[float]] = {}
        for name, folder in folders.items():
            spec = EngineSpec.read(folder / SPEC)
            tokens = random_prompt(spec.model.vocab_size, context, batch_size, SEED).tolist()
            told = {
                "action": "benchmark",
                "engine_dir": str(folder.absolute()),
                "tp_size": spec.tp_size,
                "tokens": tokens,
                "warmup": rules.warmup_min,
                "repeats_min": rules.repeats_min,
                "repeats_max": rules.repeats_max,
                "time_limit_s": rules.time_limit_s,
            }
            found = environment.run(told, [folder.absolute()])
            if found.exit_code != 0 or not found.samples_ms:
                raise RunError(f"{folder}: timing ended with {found.exit_code}: {found.tail}")
            samples[name] = found.samples_ms
        result = {"samples_ms": samples, "device_ms": {}, "warmup_rounds": rules.warmup_min, "ranks_agree": {}}
        rows += engine_rows(engines, joined([result]), context, batch_size, size, paired=False)
    return rows


def engine_rows(
    engines: Mapping[str, EngineResult],
    result: dict[str, Any],
    context: int,
    batch_size: int,
    size: str,
    paired: bool = True,
) -> list[TtftRow]:
    """One row an engine; `result` is of one launch, as `joined` gives it.

    No bound without collectives is built, so what could be hidden is not known: null.
    """
    samples = result["samples_ms"]
    rows = []
    for name, own in samples.items():
        engine = engines[name]
        about = RunRow(
            kind="measured",
            architecture=name,
            model=engine.model,
            n_layer=engine.spec["model"]["n_layer"],
            size=size or engine.model,
            context=context,
            batch_size=batch_size,
            tp_size=engine.ranks,
            link=LOOPBACK,
            engine=engine.engine,
            engine_version=f"{engine.module} {engine.version}",
            mode=engine.mode,
            device="cuda",
            dtype=engine.dtype,
            transport="nccl",
            ranks_measured=engine.ranks,
            threads_per_rank=None,
            pinned_cores=[],
            oversubscribed=False,
            weights=engine.weights,
            comparability=VERIFIED,
        )
        facts = {
            "warmup_rounds": result["warmup_rounds"],
            "stopped_by": result.get("stopped_by"),
            "collectives": engine.collectives,
            "ranks_agree": result["ranks_agree"].get(name),
        }
        rows.append(ttft_row(about, Series(own, samples.get(BASELINE), paired=paired), facts))
    return rows


def _together(folders: Mapping[str, Path], engine: str) -> dict[str, EngineResult]:
    """engine.json of every folder; raises ConfigError where they cannot be compared."""
    if not folders:
        raise ConfigError(f"no {engine} engine to time: build some with python -m stages.build_engine engine={engine}")
    engines = {name: engine_folder.read(folder) for name, folder in folders.items()}
    for key in ("engine", "ranks", "dtype", "mode", "module", "version"):
        values = {str(getattr(one, key)) for one in engines.values()}
        if len(values) > 1 or (key == "engine" and values != {engine}):
            raise ConfigError(
                f"engines differ in {key}: {', '.join(sorted(values))}; timed side by side they must all be "
                + (engine if key == "engine" else "alike")
            )
    return engines


def check_gpus(tp_size: int) -> None:
    """Raises MissingRequirementError where fewer GPUs than ranks are here."""
    here = torch.cuda.device_count()
    if here < tp_size:
        raise MissingRequirementError(
            f"{tp_size} CUDA GPUs are needed to time an engine of {tp_size} ranks, {here} are here: run on a node "
            "that has them. The torch engine's times need none"
        )
