"""Build the inference engines of one model, one a rank, or export its checkpoint.

    python -m stages.build_engine model=demo_kraken_4way engine=tensorrt engine.tp_size=4
    python -m stages.build_engine model=kraken_124m_4way engine=tensorrt engine.weights=random
    python -m stages.build_engine model=demo_kraken_4way engine=checkpoint      TensorRT-LLM's layout, a file a rank
    python -m stages.build_engine model=demo_standard engine=huggingface        a folder for transformers
    python -m stages.build_engine model=kraken_124m_4way engine=tensorrt_llm    where tensorrt_llm 0.12 to 1.2 runs

What is unchanged (spec, weights, TensorRT's version) is not built again. docs/engines.md says what was verified where.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun


def check(work: "list[Work]") -> list[str]:
    from pipeline.export.make import missing
    from pipeline.export.spec import EngineSpec

    for one in work:
        EngineSpec.of(one.config.model, one.config.engine)  # raises where no engine can be such
    return missing(work[0].config.engine)


def outdated(work: "Work") -> str | None:
    from pipeline.errors import CheckpointError
    from pipeline.export import folder, make

    try:
        engine = folder.read(work.path("engine"))
    except CheckpointError as error:
        return str(error)
    here = make.installed_version(engine.module) if engine.environment in (None, "local") else None
    if here in (None, engine.version):
        return None
    return f"built by {engine.module} {engine.version}, here is {here}"


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.export import make
    from pipeline.models.placement import head_dim

    config, code = work.config, work.code_of("pipeline.export.make")
    made = make.make(
        config.model, config.engine, work.path("trained"), work.path("engine"), _say, code, scale=config.scale.name
    )
    result = work.write(made.result)

    engine = made.result
    log.log_metrics({"engine_size_bytes": engine.size_bytes, "engine_build_s": engine.build_s})
    log.log_artifact(result)
    state = "unchanged, kept" if made.reused else f"made in {engine.build_s:.1f} s"
    target = f", target {engine.target}" if engine.target else ""
    print(
        f"\n{config.model.name}: {engine.engine} engine for {engine.ranks} rank(s), {state}\n"
        f"  {engine.size_bytes / 1e6:.1f} MB, {engine.collectives} collectives a forward, {engine.dtype}, "
        f"heads {engine.head_dim} wide (the model's: {head_dim(config.model)})\n"
        f"  {engine.module} {engine.version}{target}, {engine.mode}; {engine.status}"
    )
    print(f"wrote {result}")


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
