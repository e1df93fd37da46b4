"""Every rule between fields of different groups, in one place."""

from collections.abc import Collection

from pipeline.config.schema import Config


def faults(config: Config, read: Collection[str] | None = None) -> list[str]:
    """Everything wrong between groups, each as "key=value: what is wrong; what would be right".

    Of groups that are not all in `read` (None: all are) nothing is said.
    """
    rules = {
        _batch: {"training"},  # and the cluster, which any work may read
        _fsdp: {"training"},
        _vocabulary: {"model", "data"},
        _schedule: {"training"},
        _engine: {"engine"},
    }
    return [fault for rule, groups in rules.items() if read is None or groups <= {*read} for fault in rule(config)]


def _batch(config: Config) -> list[str]:
    """The mend is never another global batch: that would be another result."""
    micro, workers = config.cluster.micro_batch_size, config.cluster.num_workers
    batch = config.training.global_batch_size
    if batch % workers:
        return [
            f"cluster.num_workers={workers}: must divide training.global_batch_size={batch}; "
            f"{_divisor(batch, workers)} would"
        ]
    if batch % (micro * workers):
        return [
            f"cluster.micro_batch_size={micro}: times cluster.num_workers={workers} must divide "
            f"training.global_batch_size={batch}; {_divisor(batch // workers, micro)} would"
        ]
    return []


def _fsdp(config: Config) -> list[str]:
    if config.cluster.fsdp and config.cluster.num_workers == 1:
        return [
            "cluster.fsdp=true: shards over data-parallel workers, and cluster.num_workers=1 is one; "
            "false, or more workers, would do"
        ]
    return []


def _divisor(number: int, most: int) -> int:
    """The largest divisor of `number` up to `most`."""
    return next(one for one in range(min(number, most), 0, -1) if number % one == 0)


def _vocabulary(config: Config) -> list[str]:
    if config.model.vocab_size < config.data.tokenizer_vocab_size:
        return [
            f"model.vocab_size={config.model.vocab_size}: smaller than data.tokenizer_vocab_size="
            f"{config.data.tokenizer_vocab_size}; at least that many rows are needed"
        ]
    return []


def _schedule(config: Config) -> list[str]:
    training = config.training
    if training.warmup_steps >= training.steps:
        return [
            f"training.warmup_steps={training.warmup_steps}: must be below training.steps="
            f"{training.steps}; {training.steps // 10} would be"
        ]
    return []


def _engine(config: Config) -> list[str]:
    found: list[str] = []
    if config.engine.mode == "segmented" and config.engine.name not in ("tensorrt", "torch"):
        found.append(
            f"engine.mode=segmented: only engine=tensorrt has it, not engine={config.engine.name}; whole would be"
        )
    if not (config.engine.target.startswith("sm") and config.engine.target[2:].isdigit()):
        found.append(f"engine.target={config.engine.target}: must look like sm80")
    return found
