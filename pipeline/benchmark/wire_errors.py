"""What rounding sums for the wire does to a model: its logits and, where it is trained, its loss, over real ranks."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.grid import Models, expand
from pipeline.benchmark.progress import Say
from pipeline.benchmark.ranks.launcher import RankGroup, ended_in_order
from pipeline.benchmark.ranks.links import make_links
from pipeline.benchmark.ranks.memory import free_bytes, rank_bytes
from pipeline.benchmark.ttft import SEED, rank_spec
from pipeline.communication.transport import transport_name
from pipeline.config.benchmark import WIRES, BenchmarkConfig
from pipeline.config.execution import ClusterConfig
from pipeline.config.link import LOOPBACK
from pipeline.errors import MissingRequirementError
from pipeline.models.timed import ModelByName
from pipeline.results.scores import ratio_error
from pipeline.results.ttft import WireErrorRow

WINDOW = 256  # tokens of a window at most
WINDOWS, RANDOM_WINDOWS = 32, 4  # of validation tokens, spread over the split; of random ones, which have no loss
LOGITS = 4  # copies of a window's logits as float64: two wires', their difference and its square


def compared_models(benchmark: BenchmarkConfig, model_by_name: ModelByName) -> Models | None:
    """The models whose sums are rounded, over as many ranks as the benchmark's fewest; None where none would be.

    Raises ConfigError where one cannot be.
    """
    tp_sizes = [tp_size for tp_size in benchmark.tp_sizes if tp_size > 1]
    if len(benchmark.wires) < 2 or not tp_sizes:
        return None
    shape = benchmark.wire_errors or benchmark.shapes[0]
    update = {"shapes": [shape], "tp_sizes": [min(tp_sizes)], "contexts": [1], "decode_tokens": 0}
    (sizes,) = expand(benchmark.model_copy(update=update), model_by_name).values()
    return sizes[0]


def check(benchmark: BenchmarkConfig, cluster: ClusterConfig, models: Models) -> None:
    """Raise MissingRequirementError where the compared models do not fit in memory side by side."""
    length = window_length(models)
    one_window = {"contexts": [length], "batch_sizes": [1], "decode_tokens": 0, "concurrencies": []}
    logits = LOGITS * 8 * length * max(model.vocab_size for model in models.by_architecture.values())
    needed = logits + rank_bytes(benchmark.model_copy(update=one_window), models, cluster.device, shared=False)
    free = free_bytes(models.tp_size, cluster.device)
    if needed > free:
        raise MissingRequirementError(
            f"benchmark.wire_errors size={models.size}: comparing wires over {models.tp_size} ranks needs about "
            f"{needed / 1e9:.1f} GB a rank, {free / 1e9:.1f} GB are free for each: name smaller models there, or set "
            "benchmark.wires=[float32]"
        )


def window_length(models: Models) -> int:
    """Tokens of a window: WINDOW, or as many as the models read."""
    return min(WINDOW, *(model.block_size for model in models.by_architecture.values()))


def spread(tokens: int, length: int) -> tuple[int, list[int]]:
    """Length of windows and where they start, WINDOWS of them at most over a split of so many tokens.

    Each has a token more to predict; a split that is shorter gives one window of all it has.
    """
    length = min(length, tokens - 1)
    step = max(1, (tokens - length - 1) // WINDOWS)
    return length, list(range(0, tokens - length, step)[:WINDOWS])


def measure_wire_errors(
    benchmark: BenchmarkConfig,
    cluster: ClusterConfig,
    models: Models,
    trained: Mapping[str, Path],
    validation: Sequence[Sequence[int]],
    say: Say,
) -> list[WireErrorRow]:
    """A row an architecture and wire; `trained` holds folders by model name, other models have random weights.

    `validation` are windows of validation tokens for trained models. Raises RunError where a rank dies or hangs.
    """
    by_label = {label: models.weights_of(label) for label in models.by_architecture}
    folders = {label: str(trained[name]) for label, name in by_label.items() if name in trained}
    vocabulary = min(model.vocab_size for model in models.by_architecture.values())
    drawn = np.random.default_rng(SEED).integers(0, vocabulary, (RANDOM_WINDOWS, window_length(models) + 1))
    windows = {"random": drawn.tolist(), "trained": list(validation)}
    say(f"what {', '.join(benchmark.wires[1:])} sums do to {models.size} over {models.tp_size} ranks")
    rows = []
    with (
        ended_in_order(),
        tempfile.TemporaryDirectory(prefix="wires-") as scratch,
        make_links([LOOPBACK], models.tp_size) as links,
        RankGroup(
            rank_spec(benchmark, cluster, models.tp_size, Path(scratch, "store"), links.interfaces),
            links,
            benchmark.rank_timeout_s,
        ) as ranks,
    ):
        raw = {label: model.model_dump(mode="json") for label, model in models.by_architecture.items()}
        ranks.command("load", models=raw, folders=folders, shared=False)
        for label in models.by_architecture:
            weights = "trained" if label in folders else "random"
            where = {"architecture": label, "windows": windows[weights], "wires": benchmark.wires[1:]}
            found = ranks.command("wire_errors", **where)[0]
            about = {
                "architecture": label,
                "model": models.by_architecture[label].name,
                "size": models.size,
                "tp_size": models.tp_size,
                "transport": transport_name(benchmark.transport, cluster.device, models.tp_size),
                "weights": weights,
            }
            rows += [wire_error_row(about, wire, found[wire], found[WIRES[0]]) for wire in benchmark.wires[1:]]
    return rows


def wire_error_row(
    about: Mapping[str, Any], wire: str, found: Mapping[str, Any], plain: Mapping[str, Any]
) -> WireErrorRow:
    """One row of what `RankWorker.wire_errors` answered for a wire and for plain sums; no loss of random weights."""
    lengths = np.asarray(plain["lengths"], dtype=np.float64)  # (windows,) targets
    losses, plain_losses = (np.asarray(one["losses"]) for one in (found, plain))  # (windows,) nats in total
    is_trained = about["weights"] == "trained"
    loss, plain_loss = (float(one.sum() / lengths.sum()) for one in (losses, plain_losses))
    return WireErrorRow(
        kind="measured",
        **about,
        wire=wire,
        windows=len(lengths),
        tokens=int(lengths.sum()),
        relative_error=(found["squared_error"] / plain["squares"]) ** 0.5,
        largest_logit_difference=found["largest"],
        top1_agreement=found["agreeing"] / int(lengths.sum()),
        loss_nats=loss if is_trained else None,
        loss_nats_float32=plain_loss if is_trained else None,
        loss_difference_nats=loss - plain_loss if is_trained else None,
        loss_difference_standard_error=ratio_error(losses - plain_losses, lengths)
        if is_trained and len(lengths) > 1
        else None,
        perplexity=float(np.exp(loss)) if is_trained else None,
        perplexity_float32=float(np.exp(plain_loss)) if is_trained else None,
    )
