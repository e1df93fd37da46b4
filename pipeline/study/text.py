"""A study's losses as a table for a terminal."""

from tabulate import tabulate

from pipeline.results.quality import Estimate, QualityResult


def quality_table(result: QualityResult) -> str:
    """Every cell with its interval over seeds, and the difference to the baseline, paired by seed."""
    rows = [
        [
            *(cell.size, f"{cell.tokens:,}", cell.arm, cell.seeds, cell.diverged or ""),
            _text(cell.loss_nats),
            _text(cell.difference_nats, "+.3f"),
        ]
        for cell in result.cells
    ]
    headers = ["size", "tokens", "arm", "seeds", "diverged", "loss (nats)", f"minus {result.baseline} (nats)"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _text(estimate: Estimate | None, form: str = ".3f") -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
