"""Build the inference engines of one model, one a rank, or export its checkpoint.

    python -m stages.build_engine model=demo_kraken_4way engine=tensorrt engine.tp_size=4
    python -m stages.build_engine model=kraken_124m_4way engine=tensorrt engine.weights=random
    python -m stages.build_engine model=demo_kraken_4way engine=checkpoint      TensorRT-LLM's layout, a file a rank
    python -m stages.build_engine model=demo_standard engine=huggingface        a folder for transformers
    python -m stages.build_engine model=kraken_124m_4way engine=tensorrt_llm    where tensorrt_llm 0.12 to 1.2 runs

What is unchanged (spec, weights, TensorRT's version) is not built again. docs/engines.md says what was verified where.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch


def run(config: Config, log: StageRun) -> None:
    from pipeline.export import make
    from pipeline.models.placement import head_dim
    from pipeline.provenance import write_result

    stage = BY_NAME["build_engine"]
    result = stage.result(config)
    trained = Path(config.paths.trained, config.scale.name, config.model.name)
    made = make.make(config.model, config.engine, trained, result.parent, _say)
    write_result(result, made.result.body(), stage.fingerprint(config), stage.input_marks(config))

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
    raise SystemExit(launch(run, __doc__ or ""))
