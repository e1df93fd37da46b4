"""Tables of what was trained and how well it predicts: models, training, perplexity."""

import math
from typing import Any

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Inputs
from pipeline.report.table import Column, Row, Table

NOISE = 1.96  # standard errors; a smaller difference cannot be told from noise


def architecture(inputs: Inputs, model: str) -> str | None:
    """The model's architecture as one of its result files gives it."""
    bodies = [inputs.training.get(model), inputs.perplexity.get(model), *(g.get(model) for g in inputs.tasks.values())]
    for body in bodies:
        if body is None:
            continue
        if body.get("architecture"):
            return str(body["architecture"])
    return None


def baseline_of(inputs: Inputs, model: str) -> str | None:
    """The standard model nearest in parameters; None for a standard model or where there is none."""
    if architecture(inputs, model) == "standard":
        return None
    size = parameters(inputs, model)
    standards = [name for name in inputs.models if architecture(inputs, name) == "standard"]
    sized = [(name, parameters(inputs, name)) for name in standards]
    if size is None or any(count is None for _, count in sized):
        return standards[0] if len(standards) == 1 else None
    near = sorted((abs(math.log(count / size)), name) for name, count in sized if count)
    return near[0][1] if near else None


def parameters(inputs: Inputs, model: str) -> int | None:
    for body in (inputs.training.get(model), inputs.perplexity.get(model)):
        if body is not None and isinstance(body.get("parameters"), int):
            return int(body["parameters"])
    return None


def models_table(inputs: Inputs, demo: str) -> Table | None:
    """Exact parameters and shape of every model with results."""
    rows: list[Row] = []
    for model in inputs.models:
        shape = _shape(inputs, model)
        rows.append(
            {
                "kind": "counted",
                "model": model,
                "architecture": architecture(inputs, model),
                "parameters": parameters(inputs, model),
                **{
                    key: shape.get(key) for key in ("n_layer", "n_ways", "n_embd", "n_head", "block_size", "vocab_size")
                },
            }
        )
    if not rows:
        return None
    columns = [
        Column("model", "Model"),
        Column("architecture", "Architecture"),
        Column("parameters", "Parameters", format="integer"),
        Column("n_layer", "Layers", format="integer"),
        Column("n_ways", "Ways", format="integer"),
        Column("n_embd", "Width", format="integer"),
        Column("n_head", "Heads", format="integer"),
        Column("block_size", "Context", "tokens", "integer"),
        Column("vocab_size", "Vocabulary", format="integer"),
    ]
    return Table("models", "Models", columns, rows, notes=("Heads are over all ways; the head is tied.",), demo=demo)


def _shape(inputs: Inputs, model: str) -> dict[str, Any]:
    """The shape as training or an engine of this model recorded it."""
    recorded = [body.get("shape") for body in (inputs.training.get(model), inputs.perplexity.get(model)) if body]
    engines = [body for body in inputs.engines.values() if body.get("model") == model]
    recorded += [body["spec"].get("model") for body in engines if isinstance(body.get("spec"), dict)]
    return next((shape for shape in recorded if isinstance(shape, dict)), {})


def training_table(inputs: Inputs, demo: str) -> Table | None:
    """What training took and where it ended, beside a unigram model of the same text."""
    rows: list[Row] = []
    for model, body in inputs.training.items():
        loss, unigram = body.get("val_loss_nats"), body.get("unigram_loss_nats")
        rows.append(
            {
                "kind": "measured",
                "scale": inputs.scale,
                "model": model,
                **{key: body.get(key) for key in ("steps", "tokens", "train_loss_nats", "val_loss_nats")},
                **{key: body.get(key) for key in ("unigram_loss_nats", "stepping_s", "tokens_per_s_median", "mfu")},
                **{key: body.get(key) for key in ("peak_memory_bytes", "workers", "device_kind")},
                "below_unigram_nats": unigram - loss if unigram is not None and loss is not None else None,
            }
        )
    if not rows:
        return None
    columns = [
        Column("model", "Model"),
        Column("steps", "Steps", format="integer"),
        Column("tokens", "Tokens", format="integer"),
        Column("train_loss_nats", "Training loss", "nats", "number", 3),
        Column("val_loss_nats", "Validation loss", "nats", "number", 3),
        Column("unigram_loss_nats", "Unigram loss", "nats", "number", 3),
        Column("below_unigram_nats", "Below unigram", "nats", "number", 3),
        Column("stepping_s", "Time in steps", "s", "number", 0),
        Column("tokens_per_s_median", "Speed", "tokens/s", "integer"),
        Column("mfu", "MFU", format="percent", digits=1),
        Column("peak_memory_bytes", "Peak memory", "bytes", "integer"),
        Column("workers", "Workers", format="integer"),
        Column("device_kind", "Device"),
    ]
    below = [row["below_unigram_nats"] for row in rows if row["below_unigram_nats"] is not None]
    verdict = ""
    if below:
        learned = sum(value >= 1 for value in below)
        verdict = (
            f"{learned} of {len(below)} models end at least 1 nat below a unigram model of the same text "
            f"(least: {min(below):.2f} nats): "
            + ("all of them learned to use context." if learned == len(below) else "not all learned to use context.")
        )
    return Table("training", "Training", columns, rows, verdict, demo=demo)


def perplexity_table(inputs: Inputs, reference: ReferenceConfig, demo: str) -> Table | None:
    """The counterpart of the paper's Table 1: ours with standard errors, beside known losses."""
    rows: list[Row] = [_perplexity_row(inputs, model) for model in inputs.perplexity]
    if not rows:
        return None
    rows += [
        {"kind": "quoted", "model": name, "loss_nats": loss, "perplexity": math.exp(loss), "source": reference.source}
        for name, loss in reference.validation_loss_nats.items()
    ]
    columns = [
        Column("model", "Model"),
        Column("loss_nats", "Loss", "nats", "number", 4, "standard_error_nats"),
        Column("perplexity", "Perplexity", "", "number", 2, "standard_error_perplexity"),
        Column("difference_nats", "Against the baseline", "nats", "signed", 4, "difference_error_nats"),
        Column("baseline", "Baseline"),
        Column("tokens", "Tokens scored", format="integer"),
    ]
    notes = [
        "± is one standard error. The baseline is the standard model nearest in parameters, trained on the same "
        "tokens; errors of a difference are combined as if independent, which errs on the wide side.",
        "Quoted rows are public GPT-2 checkpoints on OpenWebText's validation split: another text and another training "
        "than a demo's. The perplexities of the paper's own Table 1 are not published as numbers.",
    ]
    return Table(
        "perplexity", "Validation perplexity (paper's Table 1)", columns, rows, _perplexity_verdict(rows), notes, demo
    )


def _perplexity_row(inputs: Inputs, model: str) -> Row:
    body = inputs.perplexity[model]
    loss, error = body.get("loss_nats"), body.get("standard_error_nats")
    value = body.get("perplexity")
    row: Row = {
        "kind": "measured",
        "scale": inputs.scale,
        "model": model,
        "architecture": architecture(inputs, model),
        "loss_nats": loss,
        "standard_error_nats": error,
        "perplexity": value,
        "standard_error_perplexity": value * error if value is not None and error is not None else None,
        "tokens": body.get("tokens"),
    }
    baseline = baseline_of(inputs, model)
    theirs = inputs.perplexity.get(baseline) if baseline else None
    if theirs is not None and loss is not None and theirs.get("loss_nats") is not None:
        row["baseline"] = baseline
        row["difference_nats"] = loss - theirs["loss_nats"]
        if error is not None and theirs.get("standard_error_nats") is not None:
            row["difference_error_nats"] = math.hypot(error, theirs["standard_error_nats"])
    return row


def _perplexity_verdict(rows: list[Row]) -> str:
    sentences = []
    for row in rows:
        gap, error = row.get("difference_nats"), row.get("difference_error_nats")
        if gap is None or error is None:
            continue
        if abs(gap) < NOISE * error:
            words = "cannot be told apart from"
        else:
            words = "is better than" if gap < 0 else "is worse than"
        sentences.append(f"{row['model']} {words} {row['baseline']} ({gap:+.4f} ± {error:.4f} nats).")
    return " ".join(sentences)
