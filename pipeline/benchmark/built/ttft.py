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

from pipeline.benchmark.protocol import Rules, ratio_interval, summarise
from pipeline.benchmark.ranks.launcher import RankGroup
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.spec import RankSpec
from pipeline.config.engine import EngineConfig
from pipeline.errors import ConfigError, MissingRequirementError, RunError
from pipeline.export import folder as engine_folder
from pipeline.export.spec import FILE as SPEC
from pipeline.export.spec import EngineSpec
from pipeline.export.tensorrt_llm.environment import Environment, check_versions
from pipeline.export.tensorrt_llm.maker import benchmark_spec

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
) -> list[dict[str, Any]]:
    """Rows of TensorRT engines (architecture -> folder) for every (context, batch size) of `cells`.

    Raises ConfigError where the engines do not belong together, MissingRequirementError without a GPU a rank,
    CheckpointError for incomplete engines, RunError where a rank dies.
    """
    bodies = _together(folders, "tensorrt")
    tp_size = int(next(iter(bodies.values()))["ranks"])
    check_gpus(tp_size)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="engines-") as scratch, make_links(["loopback"], tp_size) as links:
        spec = RankSpec(
            tp_size=tp_size,
            store=str(Path(scratch, "store")),
            device="cuda",
            dtype=str(next(iter(bodies.values()))["dtype"]),
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
                rows += engine_rows(bodies, found, context, batch_size, size)
    return rows


def time_tensorrt_llm(
    folders: Mapping[str, Path],
    engine: EngineConfig,
    cells: list[tuple[int, int]],
    rules: Rules,
    size: str = "",
) -> list[dict[str, Any]]:
    """Rows of TensorRT-LLM engines, timed one after the other in the environment that `engine` names."""
    bodies = _together(folders, "tensorrt_llm")
    environment = Environment.of(engine)
    check_versions(environment.run({"action": "probe"}, []))
    rows: list[dict[str, Any]] = []
    for context, batch_size in cells:
        samples: dict[str, list[float]] = {}
        for name, folder in folders.items():
            spec = EngineSpec.read(folder / SPEC)
            generator = torch.Generator().manual_seed(SEED)
            tokens = torch.randint(0, spec.model.vocab_size, (batch_size, context), generator=generator).tolist()
            repeats = (rules.repeats_min, rules.repeats_max)
            told = benchmark_spec(folder, spec, tokens, rules.warmup_min, repeats, rules.time_limit_s)
            found = environment.run(told, [folder.absolute()])
            if found.exit_code != 0 or not found.samples_ms:
                raise RunError(f"{folder}: timing ended with {found.exit_code}: {found.tail}")
            samples[name] = found.samples_ms
        result = {"samples_ms": samples, "warmup_rounds": rules.warmup_min, "ranks_agree": {}}
        rows += engine_rows(bodies, result, context, batch_size, size, paired=False)
    return rows


def engine_rows(
    bodies: Mapping[str, dict[str, Any]],
    result: dict[str, Any],
    context: int,
    batch_size: int,
    size: str,
    paired: bool = True,
) -> list[dict[str, Any]]:
    """One row an engine. No bound without collectives is built, so what could be hidden is not known: null."""
    samples: dict[str, list[float]] = result["samples_ms"]
    standard = samples.get("standard")
    rows = []
    for name, series in samples.items():
        body, own = bodies[name], summarise(series)
        faster = ratio_interval(standard, series) if standard and paired else None
        rows.append(
            {
                "kind": "measured",
                "architecture": name,
                "model": body["model"],
                "size": size or body["model"],
                "context": context,
                "batch_size": batch_size,
                "tp_size": body["ranks"],
                "engine": body["engine"],
                "mode": body["mode"],
                "engine_version": f"{body['module']} {body['version']}",
                "verified": VERIFIED,
                "device": "cuda",
                "dtype": body["dtype"],
                "link": "loopback",
                "weights": body["weights"],
                "oversubscribed": False,
                "ttft_ms_median": own.median,
                "ttft_ms_p95": own.p95,
                "ttft_ms_low": own.low,
                "ttft_ms_high": own.high,
                "ttft_ms_min": own.minimum,
                "speedup": summarise(standard).median / own.median - 1 if standard else None,
                "speedup_low": faster[0] - 1 if faster else None,
                "speedup_high": faster[1] - 1 if faster else None,
                "compute_ms": None,
                "exposed_communication_ms": None,
                "hideable_ms": None,
                "share_hidden": None,
                "repeats": own.repeats,
                "warmup_rounds": result["warmup_rounds"],
                "collectives": body["collectives"],
                "ranks_agree": result["ranks_agree"].get(name),
            }
        )
    return rows


def _together(folders: Mapping[str, Path], engine: str) -> dict[str, dict[str, Any]]:
    """engine.json of every folder; raises ConfigError where they cannot be compared."""
    if not folders:
        raise ConfigError(f"no {engine} engine to time: build some with python -m stages.build_engine engine={engine}")
    bodies = {name: engine_folder.read(folder) for name, folder in folders.items()}
    for key in ("engine", "ranks", "dtype", "mode", "module", "version"):
        values = {str(body[key]) for body in bodies.values()}
        if len(values) > 1 or (key == "engine" and values != {engine}):
            raise ConfigError(
                f"engines differ in {key}: {', '.join(sorted(values))}; timed side by side they must all be "
                + (engine if key == "engine" else "alike")
            )
    return bodies


def check_gpus(tp_size: int) -> None:
    """Raises MissingRequirementError where fewer GPUs than ranks are here."""
    here = torch.cuda.device_count()
    if here < tp_size:
        raise MissingRequirementError(
            f"{tp_size} CUDA GPUs are needed to time an engine of {tp_size} ranks, {here} are here: run on a node "
            "that has them. The torch engine's times need none"
        )
