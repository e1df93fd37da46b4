"""What a scorer is asked, and how questions are ordered into work that shares what can be shared.

Everything here is a function of the set of requests, never of their order: the same requests give the
same batches and so the same scores, bit for bit.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

Tokens = tuple[int, ...]

LENGTH_SLACK = 8  # prefixes of one batch differ by at most so many tokens, which are computed again per choice
LEAST_SAVING = 32  # tokens a shared prefix must save to be worth a pass of its own


@dataclass(frozen=True)
class Request:
    """How likely is `continuation` after `context`; both are token ids, neither is empty."""

    context: Tokens
    continuation: Tokens


@dataclass(frozen=True)
class Score:
    """Log-likelihood of a continuation in nats, and whether greedy decoding would have produced it."""

    loglikelihood: float
    is_greedy: bool


@dataclass
class Row:
    """One distinct input of the model, and the (request, targets) read off its last positions."""

    inputs: Tokens
    asked: list[tuple[int, Tokens]] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Rows that begin with the same `shared` tokens."""

    rows: tuple[Row, ...]
    shared: int


@dataclass(frozen=True)
class Work:
    """Batches of unrelated rows, batches of groups that share prefixes, and how many requests were cut."""

    plain: list[list[Row]]
    grouped: list[list[Group]]
    truncated: int


def plan(requests: Sequence[Request], block_size: int, batch_size: int, batch_tokens: int) -> Work:
    """Cut to block_size from the left as the harness does, merge equal inputs, find shared prefixes, batch by length.

    A batch holds at most `batch_size` rows and, unless it is a single row, `batch_tokens` tokens.
    """
    rows: dict[Tokens, Row] = {}
    contexts: dict[Tokens, Tokens] = {}  # input -> what stands before its first target
    truncated = 0
    for index, request in enumerate(requests):
        inputs, targets, cut = truncate(request, block_size)
        truncated += cut
        rows.setdefault(inputs, Row(inputs)).asked.append((index, targets))
        context = inputs[: len(inputs) - len(targets) + 1]
        contexts[inputs] = min(contexts.get(inputs, context), context, key=len)
    families: dict[Tokens, list[Row]] = defaultdict(list)
    for inputs, row in rows.items():
        families[contexts[inputs]].append(row)
    plain: list[Row] = []
    groups: list[Group] = []
    for family in families.values():
        family.sort(key=lambda row: row.inputs)
        shared = _common_prefix(family)
        if (len(family) - 1) * shared < LEAST_SAVING:
            plain += family
        else:
            groups.append(Group(tuple(family), shared))
    plain.sort(key=lambda row: (-len(row.inputs), row.inputs))
    groups.sort(key=lambda group: (-group.shared, group.rows[0].inputs))
    return Work(_batch_rows(plain, batch_size, batch_tokens), _batch_groups(groups, batch_size), truncated)


def truncate(request: Request, block_size: int) -> tuple[Tokens, Tokens, bool]:
    """(inputs, targets, whether anything was cut): the last block_size inputs and the targets they predict."""
    tokens = request.context + request.continuation
    inputs = tokens[-(block_size + 1) : -1]
    return inputs, request.continuation[-len(inputs) :], len(tokens) > block_size + 1


def _common_prefix(rows: Sequence[Row]) -> int:
    """Tokens that all rows begin with, leaving every row at least one of its own; rows are sorted by inputs."""
    if len(rows) == 1:
        return 0
    first, last = rows[0].inputs, rows[-1].inputs  # of sorted rows these two differ first
    longest = min(len(row.inputs) for row in rows) - 1
    for index in range(longest):
        if first[index] != last[index]:
            return index
    return longest


def _batch_rows(rows: list[Row], batch_size: int, batch_tokens: int) -> list[list[Row]]:
    batches: list[list[Row]] = []
    for row in rows:  # longest first: the first row of a batch says how wide it is
        batch = batches[-1] if batches else []
        if batch and len(batch) < batch_size and (len(batch) + 1) * len(batch[0].inputs) <= batch_tokens:
            batch.append(row)
        else:
            batches.append([row])
    return batches


def _batch_groups(groups: list[Group], batch_size: int) -> list[list[Group]]:
    batches: list[list[Group]] = []
    for group in groups:
        batch = batches[-1] if batches else []
        fits = sum(len(other.rows) for other in batch) + len(group.rows) <= batch_size
        if batch and fits and batch[0].shared - group.shared <= LENGTH_SLACK:
            batch.append(group)
        else:
            batches.append([group])
    return batches
