"""Measure a trained model's perplexity on the validation split.

python -m stages.evaluate_perplexity model=demo_kraken_4way
python -m stages.evaluate_perplexity model=… evaluation.perplexity_protocol=random_windows
"""

import math
import sys
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch


def run(config: Config, log: StageRun) -> None:
    from pipeline.data import TokenData
    from pipeline.evaluation.perplexity import check_tokenizer
    from pipeline.files import check_writable
    from pipeline.models.checkpoint import load_model

    stage = BY_NAME["evaluate_perplexity"]
    path = stage.result(config)
    check_writable(path.parent)
    trained = Path(config.paths.trained, config.scale.name, config.model.name)
    model = load_model(trained, config.model, device=config.cluster.device)
    data = TokenData.open(Path(config.paths.data, config.data.name))
    check_tokenizer(trained, data)
    body = _measure(config, model, data)
    provenance.write_result(path, body, stage.fingerprint(config), stage.input_marks(config))
    log.log_metrics({key: body[key] for key in ("loss_nats", "perplexity", "bits_per_byte") if body[key] is not None})
    log.log_artifact(path)
    print(_summary(config, body))
    print(f"written  {path}")


def _measure(config: Config, model: Any, data: Any) -> dict[str, Any]:
    from tqdm import tqdm

    from pipeline.evaluation import perplexity

    settings, block_size = config.evaluation, config.model.block_size
    if settings.perplexity_protocol == "full":
        total = math.ceil((data.val.tokens - 1) / block_size)
        windows = perplexity.full_windows(data.val, block_size)
    else:
        total = settings.random_windows
        windows = perplexity.random_windows(data.val, block_size, total, settings.random_windows_seed)
    with tqdm(total=total, unit="window", desc=config.model.name, file=sys.stderr, dynamic_ncols=True) as bar:
        found = perplexity.measure(model, windows, config.cluster.evaluation_batch_size, bar.update)
    return {
        "kind": "measured",
        "model": config.model.name,
        "architecture": config.model.architecture,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "scale": config.scale.name,
        "data": config.data.name,
        "protocol": settings.perplexity_protocol,
        "seed": settings.random_windows_seed if settings.perplexity_protocol == "random_windows" else None,
        "block_size": block_size,
        **perplexity.to_json(found, data.manifest, settings.perplexity_protocol),
    }


def _summary(config: Config, body: dict[str, Any]) -> str:
    error, spread = body["standard_error_nats"], body["standard_error_perplexity"]
    return (
        f"{config.model.name} on {config.data.name} ({body['protocol']}, measured)\n"
        f"loss        {body['loss_nats']:.4f}" + (f" ± {error:.4f}" if error is not None else "") + " nats per token\n"
        f"perplexity  {body['perplexity']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "") + "\n"
        f"tokens      {body['tokens']} in {body['windows']} windows of {body['block_size']}"
    )


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
