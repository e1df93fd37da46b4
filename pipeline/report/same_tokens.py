"""The section "Quality on the same tokens": what a study found, in tables and in words."""

from typing import Any

from pipeline.report.inputs import Inputs
from pipeline.report.study import Study, cells, count, ends, trade_words
from pipeline.report.style import readable
from pipeline.report.table import Column, Row, Table
from pipeline.results.file import Result
from pipeline.results.quality import QualityResult
from pipeline.results.search import SearchResult
from pipeline.results.trade import TradeResult

RECIPE = (
    Column("learning_rate", "Rate", format="short"),
    Column("init_std", "Initial scale", format="short", fold=True),
)


def tables(inputs: Inputs, study: Study) -> list[Table]:
    """Every table that the study's files fill."""
    found: list[Table] = []
    if study.quality is not None:
        found += [_losses(inputs, study, study.quality), _claims(inputs, study, study.quality)]
        found += [_laws(inputs, study, study.quality)]
    found += [_trade(inputs, study, stem, trade) for stem, trade in study.trades.items()]
    if study.search is not None:
        found.append(_recipes(inputs, study, study.search))
    return [table for table in found if table.rows]


def section(inputs: Inputs, study: Study) -> dict[str, Any]:
    """What stands above the section's tables: the question, the answers in words, what is not there."""
    said = [line] if (line := one_line(study)) else []
    if study.trade is not None:
        said.append(study.trade.verdict)
    return {
        "name": study.name,
        "title": study.title,
        "question": study.quality.question if study.quality else "",
        "line": line,
        "verdicts": said,
        "facts": [*_facts(study.quality), *_cost(study.search)],
        "missing": list(study.lacking(inputs.scale)),
    }


def one_line(study: Study) -> str:
    """What Kraken loses on the baseline in the central cell; every arm where none is Kraken; empty where unknown."""
    if study.quality is None:
        return ""
    quality, own = study.quality, study.architectures
    central = [cell for cell in _central(quality) if cell.arm != quality.baseline]
    chosen = [cell for cell in central if own.get(cell.arm) == "kraken"] or central
    parts = []
    for cell in chosen:
        if cell.difference_nats is not None:
            parts.append(f"{readable(cell.arm)} {cell.difference_nats.text(2, '+')}")
        elif cell.diverged:
            parts.append(f"{readable(cell.arm)} diverged in {cell.diverged} of {cell.diverged + cell.seeds} runs")
    if not parts:
        return ""
    at = f"{quality.central_size} at {count(quality.central_tokens)}"
    named = "" if study.name == "same_tokens" else f" ({study.name})"
    on = f"nats on {readable(quality.baseline)}"
    return f"Same tokens{named}, {at}: {', '.join(parts)} {on} (measured, 95% over seeds)"


def _central(quality: QualityResult) -> list[Any]:
    here = (quality.central_size, quality.central_tokens)
    return [cell for cell in cells(quality) if (cell.size, cell.tokens) == here]


def _losses(inputs: Inputs, study: Study, quality: QualityResult) -> Table:
    models = {(model.arm, model.size): model for model in quality.models}
    rows: list[Row] = []
    for cell in cells(quality):
        model = models.get((cell.arm, cell.size))
        rows.append(
            {
                **(model.model_dump(exclude={"arm", "size"}) if model else {}),
                "kind": cell.kind,
                "scale": inputs.scale,
                "size": cell.size,
                "tokens": cell.tokens,
                "arm": cell.arm,
                "seeds": cell.seeds,
                "diverged": cell.diverged,
                **ends("loss_nats", cell.loss_nats),
                **ends("difference_nats", cell.difference_nats),
            }
        )
    columns = [
        Column("size", "Size"),
        Column("tokens", "Tokens", format="integer"),
        Column("arm", "Arm"),
        Column("loss_nats", "Loss", "nats, 95%", "number", 3, interval=True),
        Column("difference_nats", f"On {readable(quality.baseline)}", "nats, 95%", "signed", 3, interval=True),
        Column("seeds", "Runs that ended", format="integer", fold=True),
        Column("diverged", "Diverged", format="integer", fold=True),
        Column("parameters", "Parameters", format="integer"),
        Column("layer_parameters", "In layers", format="integer"),
        Column("budget", "Equal in"),
        *RECIPE,
        Column("rate_is_scaled", "Rate of another size", format="yes_no"),
        Column("n_embd", "Width", format="integer"),
    ]
    notes = [
        f"Loss on {quality.validation_tokens:,} validation tokens, mean over seeds. The difference is to "
        f"{readable(quality.baseline)}, paired by seed: both saw the same tokens in the same order. Above 0 is worse.",
        "Equal in: the parameters that are the standard model's in number, all of them or those in layers (without "
        "embeddings and head). A run that diverged has no loss and is counted instead.",
        "The protocol, and what can be held against it: docs/same_tokens.md.",
    ]
    return Table(f"losses_{study.name}", "Loss on the same tokens", columns, rows, "", notes, inputs.demo, study.name)


def _claims(inputs: Inputs, study: Study, quality: QualityResult) -> Table:
    said = ("claim", "verdict", "because", "settled_by", "source")
    rows: list[Row] = [
        {"kind": "measured", "scale": inputs.scale, **claim.model_dump(include=set(said))} for claim in quality.claims
    ]
    columns = [
        Column("claim", "Claim"),
        Column("verdict", "Verdict"),
        Column("because", "Because"),
        Column("settled_by", "What would settle it"),
        Column("source", "Claimed by"),
    ]
    notes = [
        f"A verdict is of these runs alone, at these sizes and token counts. As good means less than "
        f"{quality.margin_nats} nats worse: {quality.margin_reason}.",
    ]
    return Table(f"claims_{study.name}", "Claims", columns, rows, "", notes, inputs.demo, study.name)


def _laws(inputs: Inputs, study: Study, quality: QualityResult) -> Table:
    rows = [
        {
            **law.model_dump(exclude={"scale", "exponent"}),
            "scale": inputs.scale,
            **ends("at_one", law.scale),
            **ends("exponent", law.exponent),
        }
        for law in quality.laws
    ]
    columns = [
        Column("arm", "Arm"),
        Column("against", "x"),
        Column("fixed", "Held fixed"),
        Column("points", "Points", format="integer", fold=True),
        Column("exponent", "Exponent", "95%", "number", 3, interval=True),
        Column("at_one", "Loss at x = 1", "nats, 95%", "number", 1, interval=True),
        Column("worst_residual_nats", "Worst residual", "nats", "number", 3),
    ]
    notes = ["Loss = a · x^(−exponent), fitted to the runs of an arm; not to be read beyond the sizes trained here."]
    return Table(f"laws_{study.name}", "Fitted laws", columns, rows, "", notes, inputs.demo, study.name)


def _trade(inputs: Inputs, study: Study, stem: str, trade: TradeResult) -> Table:
    estimates = ("loss_nats", "ttft_ms", "gain_nats")
    rows: list[Row] = [
        {
            **row.model_dump(exclude=set(estimates)),
            **({} if row.kind == "projected" else {"scale": inputs.scale}),
            **ends("loss_nats", row.loss_nats),
            **ends("ttft_ms", row.ttft_ms),
            **ends("gain_nats", row.gain_nats),
        }
        for row in trade.rows
    ]
    columns = [
        Column("size", "Size"),
        Column("arm", "Arm"),
        Column("ttft_ms", "TTFT", "ms, 95%", "number", 2, interval=True),
        Column("speedup", "Speedup", "", "signed_percent", 1),
        Column("loss_nats", "Loss", "nats, 95%", "number", 3, interval=True),
        Column("standard_loss_nats", "Standard of this TTFT", "nats", "number", 3),
        Column("gain_nats", "Gain on it", "nats, 95%", "signed", 3, interval=True),
    ]
    notes = [f"{setting.kind.capitalize()}: {place(setting)}." for setting in trade.settings]
    notes.append(
        f"Losses after {trade.central_tokens:,} tokens. Standard of this TTFT: the loss of a standard model as fast as "
        "this arm, between the measured sizes in log TTFT; an en dash outside of them. A gain above 0: this arm is the "
        "better model of its speed."
    )
    said = "" if trade is study.trade else trade.verdict  # the study's own stands above its tables
    title = f"Loss against TTFT{trade_words(stem)}"
    return Table(f"{stem}_{study.name}", title, columns, rows, said, notes, inputs.demo, study.name)


def place(setting: Any) -> str:
    """Where times come from, in words."""
    return f"{setting.where}, {setting.context} prompt tokens, batch {setting.batch_size}"


def _recipes(inputs: Inputs, study: Study, search: SearchResult) -> Table:
    rows = [
        {
            "kind": "measured",
            "scale": inputs.scale,
            **recipe.model_dump(),
            "scale_at_end": recipe.init_std in (min(search.init_stds), max(search.init_stds)),
            **_tried(search, recipe.arm, recipe.size),
        }
        for recipe in search.recipes
    ]
    columns = [
        Column("size", "Size", fold=True),
        Column("arm", "Arm"),
        *RECIPE,
        Column("loss_nats", "Loss", "nats, one seed", "number", 3),
        Column("at_edge", "Rate at the edge", format="yes_no"),
        Column("scale_at_end", "Scale at the end", format="yes_no", fold=True),
        Column("trials", "Trials", format="integer"),
        Column("stopped", "Stopped", format="integer"),
        Column("diverged", "Diverged", format="integer"),
    ]
    notes = [
        "Rate at the edge: a rate next to the best one was not tried at its initial scale; a better one may lie there.",
        "Scale at the end: the initial scale is the smallest or largest that was tried; a better one may lie beyond.",
        "A search's loss is of its own, shorter runs from one seed: it chooses a recipe and compares no arms.",
    ]
    return Table(f"recipes_{study.name}", "Recipes found", columns, rows, "", notes, inputs.demo, study.name)


def _tried(search: SearchResult, arm: str, size: str) -> Row:
    outcomes = [trial.outcome for trial in search.trials if (trial.arm, trial.size) == (arm, size)]
    return {"trials": len(outcomes), "stopped": outcomes.count("stopped"), "diverged": outcomes.count("diverged")}


def _cost(search: SearchResult | None) -> list[str]:
    """The search's space and its cost, a line each."""
    if search is None:
        return []
    rates, scales = (
        ", ".join(f"{value:g}" for value in values) for values in (search.learning_rates, search.init_stds)
    )
    cost = search.cost
    return [
        f"Search: rates {rates}, initial scales {scales}; {search.method}, {count(search.search_tokens)} tokens a "
        f"trial that is not stopped, seed {search.seed}.",
        f"Its cost (measured; FLOPs counted): {cost.trials} trials ({cost.stopped} stopped, {cost.diverged} diverged), "
        f"{count(cost.tokens)} tokens, {count(cost.flops)} FLOPs, {_seconds(cost.seconds, search)}.",
    ]


def _facts(quality: QualityResult | None) -> list[str]:
    """What all runs have in common, and what they took."""
    if quality is None:
        return []
    ended = sum(run.loss_nats is not None for run in quality.runs)
    return [
        f"Runs: {len(quality.runs)}, of which {ended} ended and {len(quality.runs) - ended} diverged; "
        f"{quality.global_batch_size} sequences of {quality.block_size} tokens a step; a unigram model of the same "
        f"text has {quality.unigram_loss_nats:.3f} nats.",
        f"Their cost (measured; FLOPs counted): {count(quality.flops)} FLOPs, {_seconds(quality.seconds, quality)}.",
    ]


def _seconds(seconds: float, result: Result) -> str:
    """Wall seconds and whose they are."""
    device = (result.provenance or {}).get("device") or {}
    gpus = device.get("gpus") or []
    machine = gpus[0] if gpus else f"{device['cpu']}, {device.get('cores')} cores" if device.get("cpu") else "unknown"
    return f"{seconds:,.0f} {'GPU' if gpus else 'CPU'} wall seconds added up ({machine})"
