"""A study's losses as a table for a terminal."""

from tabulate import tabulate

from pipeline.results.quality import QualityResult


def quality_table(result: QualityResult) -> str:
    """Every cell with its interval over seeds, and the difference to the baseline, paired by seed."""
    rows = [
        [
            *(cell.size, f"{cell.tokens:,}", cell.arm, cell.seeds, cell.diverged or ""),
            cell.loss_nats.text() if cell.loss_nats else "-",
            cell.difference_nats.text(3, "+") if cell.difference_nats else "-",
        ]
        for cell in result.cells
    ]
    headers = ["size", "tokens", "arm", "seeds", "diverged", "loss (nats)", f"minus {result.baseline} (nats)"]
    return tabulate(rows, headers=headers, disable_numparse=True)
