"""Tables of what was trained and how well it predicts: models, training, perplexity."""

import math

from pipeline.config.reference import ReferenceConfig
from pipeline.report.inputs import Inputs, overrides
from pipeline.report.table import Column, Row, Table, flat
from pipeline.results import BASELINE

NOISE = 1.96  # standard errors; a smaller difference cannot be told from noise


def baseline_of(inputs: Inputs, model: str) -> str | None:
    """The baseline nearest in parameters, scored on the same data with the same overrides; None for one itself, or
    where there is none."""
    ours = inputs.perplexity[model]
    if ours.architecture == BASELINE:
        return None
    distances = {
        name: abs(math.log(one.parameters / ours.parameters))
        for name, one in inputs.perplexity.items()
        if one.architecture == BASELINE and one.data == ours.data and overrides(name) == overrides(model)
    }
    return min(distances, key=lambda name: distances[name], default=None)


def models_table(inputs: Inputs) -> Table | None:
    """Exact parameters and shape of every model with results."""
    rows: list[Row] = []
    shapes = {engine.model: engine.spec.get("model", {}) for engine in inputs.engines.values()}
    shapes |= {model: result.shape for model, result in inputs.training.items()}
    for model in inputs.models:
        counted = inputs.training.get(model) or inputs.perplexity.get(model)
        rows.append(
            {
                **shapes.get(model, {}),
                "kind": "counted",
                "model": model,
                "architecture": inputs.architecture(model),
                "parameters": counted.parameters if counted else None,
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
    notes = ("Heads are over all ways; the head is tied.",)
    return Table("models", "Models", columns, rows, notes=notes, demo=inputs.demo)


def training_table(inputs: Inputs) -> Table | None:
    """What training took and where it ended, beside a unigram model of the same text."""
    rows: list[Row] = []
    for model, result in inputs.training.items():
        unigram = result.unigram_loss_nats
        below = None if unigram is None else unigram - result.val_loss_nats
        rows.append({**flat(result), "scale": inputs.scale, "model": model, "below_unigram_nats": below})
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
        Column("ranks", "Ranks", format="integer"),
        Column("device_kind", "Device"),
    ]
    gaps = [row["below_unigram_nats"] for row in rows if row["below_unigram_nats"] is not None]
    verdict = ""
    if gaps:
        learned = sum(value >= 1 for value in gaps)
        verdict = (
            f"{learned} of {len(gaps)} models end at least 1 nat below a unigram model of the same text "
            f"(least: {min(gaps):.2f} nats): "
            + ("all of them learned to use context." if learned == len(gaps) else "not all learned to use context.")
        )
    return Table("training", "Training", columns, rows, verdict, demo=inputs.demo)


def perplexity_table(inputs: Inputs, reference: ReferenceConfig) -> Table | None:
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
    heading = "Validation perplexity (paper's Table 1)"
    return Table("perplexity", heading, columns, rows, _perplexity_verdict(rows), notes, inputs.demo)


def _perplexity_row(inputs: Inputs, model: str) -> Row:
    ours, baseline = inputs.perplexity[model], baseline_of(inputs, model)
    row = {**flat(ours), "scale": inputs.scale, "model": model, "baseline": baseline}
    if baseline is not None:
        theirs = inputs.perplexity[baseline]
        row["difference_nats"] = ours.loss_nats - theirs.loss_nats
        if ours.standard_error_nats is not None and theirs.standard_error_nats is not None:
            # a file holds no loss a window, so the shared windows cannot be paired
            row["difference_error_nats"] = math.hypot(ours.standard_error_nats, theirs.standard_error_nats)
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
