"""A result of task scoring as text for a terminal."""

from typing import Any

from pipeline.evaluation.superglue.data import MEANING


def superglue_table(body: dict[str, Any]) -> str:
    """Scores with standard errors, chance, majority class and what they may be compared with."""
    lines = [
        f"SuperGLUE, {body['n_shot']}-shot, {body['model']} (percent ± standard error, measured)",
        f"{'task':<10}{'metric':<8}{'score':>15}{'chance':>9}{'majority':>10}{'items':>7}{'cut':>6}  data",
    ]
    lines += [
        f"{entry['title']:<10}{entry['metric']:<8}{_with_error(entry['score'], entry['standard_error']):>15}"
        f"{entry['chance']:>9.2f}{_number(entry['majority']):>10}{entry['items']:>7}"
        f"{entry['truncated_requests']:>6}  {entry['data']}"
        for entry in body["tasks"].values()
    ]
    lines.append(
        f"{'mean':<18}{_with_error(body['mean'], body['mean_standard_error']):>15}{body['mean_chance']:>9.2f}"
        f"{body['mean_majority']:>10.2f}{'':>13}  {body['data']}"
    )
    lines.append(f"data: {body['data']}: {MEANING[body['data']]}")
    cut = sum(entry["truncated_requests"] for entry in body["tasks"].values())
    if cut:
        total = sum(entry["requests"] for entry in body["tasks"].values())
        lines.append(f"cut: {cut} of {total} requests were longer than block_size and lost their beginning")
    notes = {f"{entry['title']}: {note}" for entry in body["tasks"].values() for note in entry["notes"]}
    lines += sorted(notes)
    lines.append(body["published_note"])
    return "\n".join(lines + _baseline(body) + _published(body))


def tasks_table(body: dict[str, Any]) -> str:
    """Any tasks: the harness' own metrics."""
    lines = [f"{body['n_shot']}-shot, {body['model']} (the harness' own metrics, measured)"]
    for name, entry in body["tasks"].items():
        for metric, value in entry["metrics"].items():
            error = entry["metric_standard_errors"].get(metric)
            lines.append(f"{name:<24}{metric:<18}{_with_error(value, error, 4):>20}")
        if entry["truncated_requests"]:
            lines.append(f"{'':<24}{entry['truncated_requests']} of {entry['requests']} requests cut at block_size")
    return "\n".join(lines)


def _baseline(body: dict[str, Any]) -> list[str]:
    paired = body.get("baseline")
    if not paired:
        return []
    lines = ["", f"minus {paired['model']} on the same items (percent, 95% interval, p of flipped signs)"]
    for task, row in paired["differences"].items():
        title = body["tasks"][task]["title"] if task in body["tasks"] else task
        lines.append(
            f"{title:<18}{row['difference']:>+8.2f}  [{row['low']:+.2f}, {row['high']:+.2f}]  p={row['p_value']:.3f}"
            f"{'  noise' if row['is_noise'] else ''}"
        )
    return [*lines, paired["sentence"]]


def _published(body: dict[str, Any]) -> list[str]:
    published = body.get("published")
    if not published:
        return []
    lines = ["", f"beside {published['row']} as published (quoted, percent)"]
    for task, row in published["tasks"].items():
        title = body["tasks"][task]["title"] if task in body["tasks"] else task
        flag = "  above two standard errors" if row["flagged"] else ""
        lines.append(f"{title:<18}{row['ours']:>8.2f}{row['published']:>9.2f}{row['difference']:>+9.2f}{flag}")
    if not published["comparable"]:
        lines.append("not the same data as the published row: the differences say nothing about the model")
    return lines


def _with_error(value: float, error: float | None, digits: int = 2) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}" if error is not None else f"{value:.{digits}f} ±    –"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
