"""A result of task scoring as text for a terminal."""

from pipeline.results.tasks import TasksResult


def superglue_table(result: TasksResult) -> str:
    """Scores with standard errors, chance, majority class and what they may be compared with."""
    rows = list(result.tasks.values())
    lines = [
        f"SuperGLUE, {result.n_shot}-shot, {result.model} (percent ± standard error, {result.kind})",
        f"{'task':<10}{'metric':<8}{'score':>15}{'chance':>9}{'majority':>10}{'items':>7}{'cut':>6}  data",
    ]
    lines += [
        f"{row.title:<10}{row.metric:<8}{_with_error(row.score, row.standard_error):>15}"
        f"{_number(row.chance):>9}{_number(row.majority):>10}{row.items:>7}{row.truncated_requests:>6}  {row.data}"
        for row in rows
    ]
    lines.append(
        f"{'mean':<18}{_with_error(result.mean, result.mean_standard_error):>15}{_number(result.mean_chance):>9}"
        f"{_number(result.mean_majority):>10}{'':>13}  {result.data}"
    )
    lines.append(f"data: {result.data}: {result.data_meaning}")
    cut = sum(row.truncated_requests for row in rows)
    if cut:
        total = sum(row.requests for row in rows)
        lines.append(f"cut: {cut} of {total} requests were longer than block_size and lost their beginning")
    lines += sorted({f"{row.title}: {note}" for row in rows for note in row.notes})
    lines.append(result.published_note or "")
    return "\n".join(lines + _baseline(result) + _published(result))


def tasks_table(result: TasksResult) -> str:
    """Any tasks: the harness' own metrics."""
    lines = [f"{result.n_shot}-shot, {result.model} (the harness' own metrics, {result.kind})"]
    for name, row in result.tasks.items():
        for metric, value in row.metrics.items():
            lines.append(f"{name:<24}{metric:<18}{_with_error(value, row.metric_standard_errors.get(metric), 4):>20}")
        if row.truncated_requests:
            lines.append(f"{'':<24}{row.truncated_requests} of {row.requests} requests cut at block_size")
    return "\n".join(lines)


def _baseline(result: TasksResult) -> list[str]:
    paired = result.baseline
    if not paired:
        return []
    lines = ["", f"minus {paired.model} on the same items (percent, 95% interval, p of flipped signs)"]
    lines += [
        f"{_title(result, task):<18}{row.difference:>+8.2f}  [{row.low:+.2f}, {row.high:+.2f}]  p={row.p_value:.3f}"
        f"{'  noise' if row.is_noise else ''}"
        for task, row in paired.differences.items()
    ]
    return [*lines, paired.sentence]


def _published(result: TasksResult) -> list[str]:
    published = result.published
    if not published:
        return []
    lines = ["", f"beside {published.row} as published (quoted, percent)"]
    lines += [
        f"{_title(result, task):<18}{row.ours:>8.2f}{row.published:>9.2f}{row.difference:>+9.2f}"
        f"{'  above two standard errors' if row.flagged else ''}"
        for task, row in published.tasks.items()
    ]
    if not published.comparable:
        lines.append("not the same data as the published row: the differences say nothing about the model")
    return lines


def _title(result: TasksResult, task: str) -> str:
    return (result.tasks[task].title if task in result.tasks else None) or task


def _with_error(value: float | None, error: float | None, digits: int = 2) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f} ± {error:.{digits}f}" if error is not None else f"{value:.{digits}f} ±    –"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
