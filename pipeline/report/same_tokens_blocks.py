"""Tables of README and docs about quality on the same tokens, made of the committed study."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ResultError
from pipeline.report.study import count, unknown_model
from pipeline.report.style import readable
from pipeline.report.table import markdown
from pipeline.results import QualityResult, SearchResult, TradeResult, read
from pipeline.results.quality import QualityCell

STUDY = "xeon_2_cores/cpu/same_tokens"  # under results/reference


def blocks(reference: Path) -> dict[str, str]:
    """Text by block; `reference` is results/reference. Raises ResultError for a file that is none, or lacks models."""
    folder = reference / STUDY
    quality = read(folder / "quality.json", QualityResult)
    if odd := unknown_model(quality):
        raise ResultError(f"{folder / 'quality.json'} {odd}; make it again with {QualityResult.command}")
    search = read(folder / "search.json", SearchResult)
    trade = read(folder / "trade.json", TradeResult)
    return {
        "same tokens, short": _short(quality),
        "same tokens, losses": _losses(quality),
        "same tokens, recipes": _recipes(search),
        "same tokens, claims": _claims(quality),
        "same tokens, speed": _speed(trade),
    }


def _short(quality: QualityResult) -> str:
    """The central size after the most tokens: what the first page shows."""
    most = max(cell.tokens for cell in quality.cells if cell.size == quality.central_size)
    chosen = [cell for cell in quality.cells if (cell.size, cell.tokens) == (quality.central_size, most)]
    models = {model.arm: model for model in quality.models if model.size == quality.central_size}
    rows = [
        [
            *(readable(cell.arm), f"{models[cell.arm].parameters:,}", f"{models[cell.arm].layer_parameters:,}"),
            *(f"{models[cell.arm].learning_rate:g}", *_cell(cell)),
        ]
        for cell in chosen
    ]
    seeds = max(cell.seeds for cell in chosen)
    headers = ["model", "parameters", "in layers", "best rate", "loss (nats)", f"against {quality.baseline} (nats)"]
    return (
        f"{markdown(headers, rows)}\n\nMeasured: {count(most)} tokens of documentation text, the same in the same "
        f"order for all, {seeds} seeds, 95% intervals, differences paired by seed."
    )


def _losses(quality: QualityResult) -> str:
    models = {(model.arm, model.size): model for model in quality.models}
    rows = [
        [
            *(cell.size, f"{cell.tokens:,}", readable(cell.arm), f"{models[cell.arm, cell.size].parameters:,}"),
            *(*_cell(cell), str(cell.diverged or "")),
        ]
        for cell in quality.cells
    ]
    headers = ["size", "tokens", "arm", "parameters", "loss (nats)", f"against {quality.baseline} (nats)", "diverged"]
    return markdown(headers, rows)


def _recipes(search: SearchResult) -> str:
    rows = [
        [
            *(readable(one.arm), one.size, f"{one.learning_rate:g}", f"{one.init_std:g}", f"{one.loss_nats:.3f}"),
            "yes" if one.at_edge else "",
        ]
        for one in search.recipes
    ]
    cost = search.cost
    return (
        markdown(["arm", "size", "rate", "initial scale", "loss (nats)", "at the edge"], rows)
        + f"\n\n{cost.trials} trials ({cost.stopped} stopped early, {cost.diverged} diverged), {cost.tokens:,} tokens, "
        f"{cost.flops:.2g} FLOPs, {cost.seconds / 3600:.1f} core hours."
    )


def _claims(quality: QualityResult) -> str:
    rows = [[one.claim, one.verdict, one.because, one.settled_by] for one in quality.claims]
    return markdown(["claim", "verdict", "because", "what would settle it"], rows)


def _speed(trade: TradeResult) -> str:
    rows = [
        [
            *(readable(row.arm), row.size, row.kind, row.ttft_ms.text(2), f"{row.speedup:+.1%}"),
            *(row.loss_nats.text(), "-" if row.gain_nats is None else row.gain_nats.text(3, "+")),
        ]
        for row in trade.rows
    ]
    headers = ["arm", "size", "kind", "TTFT (ms)", "speedup", "loss (nats)", "gain at equal TTFT (nats)"]
    return f"{markdown(headers, rows)}\n\n{trade.verdict}"


def _cell(cell: QualityCell) -> Iterator[str]:
    yield cell.loss_nats.text() if cell.loss_nats else "diverged"
    yield cell.difference_nats.text(2, "+") if cell.difference_nats else "-"
