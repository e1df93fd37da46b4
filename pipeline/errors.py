"""Errors that a user can act on: one clear message and an exit code, never a traceback."""


class PipelineError(Exception):
    """Base of every expected error. The text says what is wrong, where, and what would be right."""

    exit_code = 2  # bad input, found before any work was done


class ConfigError(PipelineError):
    """The configuration cannot be run; the text lists every fault with its key and value."""


class DataError(PipelineError):
    """A corpus, shard or tokenizer is missing, unreadable or altered."""


class CheckpointError(PipelineError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class OutputError(PipelineError):
    """A result cannot be written: no permission, no space."""


class ResultError(PipelineError):
    """A result file is damaged or of another schema than the one that is read."""


class MissingRequirementError(PipelineError):
    """This machine lacks something the request needs; the text says what would do."""


class PlanError(PipelineError):
    """A dry run found something missing."""


class RunError(PipelineError):
    """Work that had started failed (a rank died, a loss is not finite)."""

    exit_code = 1


class TransportError(RunError):
    """What carries sums between ranks got something else than it awaited, or lost the other side."""
