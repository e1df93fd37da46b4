"""Every rule between fields of different groups, in one place."""

from pipeline.config.schema import Config


def faults(config: Config) -> list[str]:
    """Everything wrong between groups, each as "key=value: what is wrong; what would be right"."""
    return [*_batch(config), *_vocabulary(config), *_schedule(config), *_engine(config)]


def _batch(config: Config) -> list[str]:
    micro = config.cluster.micro_batch_size * config.cluster.num_workers
    batch = config.training.global_batch_size
    if batch % micro:
        return [
            f"training.global_batch_size={batch}: must be divisible by cluster.micro_batch_size × "
            f"cluster.num_workers = {config.cluster.micro_batch_size} × {config.cluster.num_workers}; "
            f"{max(1, round(batch / micro)) * micro} would be"
        ]
    return []


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
