"""Measure a trained model's perplexity on the validation split.

python -m stages.evaluate_perplexity model=demo_kraken_4way
python -m stages.evaluate_perplexity model=… evaluation.perplexity_protocol=random_windows
"""

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.experiment.work import Work
    from pipeline.results import PerplexityResult
    from pipeline.tracking import StageRun


def check(work: "list[Work]") -> list[str]:
    from pipeline.evaluation.requirements import missing_gpus

    return missing_gpus(work[0].config.cluster.device, 1)


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.data import TokenData
    from pipeline.evaluation.perplexity import check_tokenizer
    from pipeline.files import check_writable
    from pipeline.models.checkpoint import load_model

    config, trained = work.config, work.path("trained")
    check_writable(work.result.parent)
    model = load_model(trained, config.model, device=config.cluster.device)
    data = TokenData.open(work.path("data"))
    check_tokenizer(trained, data)
    found = _measure(config, model, data)
    path = work.write(found)
    metrics = {"loss_nats": found.loss_nats, "perplexity": found.perplexity, "bits_per_byte": found.bits_per_byte}
    log.log_metrics({name: value for name, value in metrics.items() if value is not None})
    log.log_artifact(path)
    print(_summary(found))
    print(f"written  {path}")


def _measure(config: "Config", model: Any, data: Any) -> "PerplexityResult":
    from tqdm import tqdm

    from pipeline.evaluation import perplexity

    settings, block_size = config.evaluation, config.model.block_size
    if settings.perplexity_protocol == "full":
        total = math.ceil((data.val.tokens - 1) / block_size)
        windows = data.val.windows(block_size)
    else:
        total = settings.random_windows
        windows = perplexity.random_windows(data.val, block_size, total, settings.random_windows_seed)
    with tqdm(total=total, unit="window", desc=config.model.name, file=sys.stderr, dynamic_ncols=True) as bar:
        found = perplexity.measure(model, windows, config.cluster.evaluation_batch_size, bar.update)
    return perplexity.make_result(config, model, data.manifest, found)


def _summary(found: "PerplexityResult") -> str:
    error, spread = found.standard_error_nats, found.standard_error_perplexity
    return (
        f"{found.model} on {found.data} ({found.protocol}, {found.kind})\n"
        f"loss        {found.loss_nats:.4f}" + (f" ± {error:.4f}" if error is not None else "") + " nats per token\n"
        f"perplexity  {found.perplexity:.3f}" + (f" ± {spread:.3f}" if spread is not None else "") + "\n"
        f"tokens      {found.tokens} in {found.windows} windows of {found.block_size}"
    )


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
