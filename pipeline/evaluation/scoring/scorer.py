"""Scoring token sequences with a model: log-likelihoods with shared prefixes, and greedy generation.

Knows tokens only. On tensor-parallel ranks every rank makes the same calls with its own part of the
model, and every rank gets the same answers.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pipeline.communication import LOCAL, Communicator
from pipeline.evaluation.scoring.requests import Group, Request, Row, Score, Tokens, plan
from pipeline.models import KeyValueCache, Transformer

LOGIT_ROWS = 256  # positions whose logits exist at once: 256 · 50,304 · 4 bytes = 52 MB
CPU_BATCH_TOKENS = 2048  # more only spills the cache of a CPU
GPU_BATCH_TOKENS = 65536

Progress = Callable[[int], object]


@dataclasses.dataclass
class Counts:
    """What scoring took."""

    requests: int = 0
    truncated: int = 0
    computed_tokens: int = 0


def _ignore(done: int) -> None:
    """Progress nobody watches."""


class Scorer:
    """A model, or one rank's part of it, that answers requests."""

    def __init__(self, model: Transformer, communicator: Communicator = LOCAL, batch_size: int = 16) -> None:
        self.model = model.eval()
        self.communicator = communicator
        self.batch_size = batch_size
        self.block_size = model.config.block_size
        self.device = model.wte.weight.device
        self.batch_tokens = CPU_BATCH_TOKENS if self.device.type == "cpu" else GPU_BATCH_TOKENS
        self.counts = Counts()
        self.agree: Callable[[bool], bool] = lambda stop: stop  # ranks replace it by rank 0's word
        self.announce: Callable[..., object] = lambda *call: None  # rank 0 tells the others by it

    @torch.inference_mode()
    def loglikelihood(self, requests: Sequence[Request], progress: Progress = _ignore) -> list[Score]:
        """A score for each request, in their order; `progress` is told how many more are done."""
        self.announce("loglikelihood", list(requests))
        work = plan(requests, self.block_size, self.batch_size, self.batch_tokens)
        self.counts.requests += len(requests)
        self.counts.truncated += work.truncated
        scores: dict[int, Score] = {}
        for found in self._batches(work.grouped, work.plain):
            scores.update(found)
            progress(len(found))
        return [scores[index] for index in range(len(requests))]

    def _batches(self, grouped: list[list[Group]], plain: list[list[Row]]) -> Iterator[dict[int, Score]]:
        for groups in grouped:
            yield from self._score_groups(groups)
        for rows in plain:
            hidden = self._forward([row.inputs for row in rows])  # (B, T, d)
            width = hidden.shape[1]
            flat = hidden.reshape(-1, hidden.shape[2])
            sources = [[b * width + p for p in range(len(row.inputs))] for b, row in enumerate(rows)]
            yield self._read(rows, sources, flat)

    def _score_groups(self, groups: list[Group]) -> Iterator[dict[int, Score]]:
        """The common prefix of each group once, then the rest of its rows behind copies of its cache."""
        cut = min(group.shared for group in groups)
        cache = self.model.new_cache(len(groups), cut)
        prefix = self._forward([group.rows[0].inputs[:cut] for group in groups], cache)  # (G, cut, d)
        flat_prefix = prefix.reshape(-1, prefix.shape[2])
        members = [(g, row) for g, group in enumerate(groups) for row in group.rows]
        for start in range(0, len(members), self.batch_size):
            part = members[start : start + self.batch_size]
            longest = max(len(row.inputs) for _, row in part)
            own = cache.select(torch.tensor([g for g, _ in part], device=self.device), longest)
            rest = self._forward([row.inputs[cut:] for _, row in part], own)  # (R, longest - cut, d)
            width = longest - cut
            sources = [
                [g * cut + p for p in range(cut)]
                + [len(flat_prefix) + r * width + p for p in range(len(row.inputs) - cut)]
                for r, (g, row) in enumerate(part)
            ]
            flat = torch.cat([flat_prefix, rest.reshape(-1, rest.shape[2])])
            yield self._read([row for _, row in part], sources, flat)

    def _forward(self, rows: Sequence[Tokens], cache: KeyValueCache | None = None) -> Tensor:
        """Hidden states (B, T, d) of rows padded on the right, where causal attention never looks."""
        width = max(len(row) for row in rows)
        self.counts.computed_tokens += sum(len(row) for row in rows)
        tokens = torch.tensor([row + (0,) * (width - len(row)) for row in rows], device=self.device)  # (B, T)
        return self.model.hidden(tokens, self.communicator, cache)

    def _read(self, rows: Sequence[Row], sources: list[list[int]], flat: Tensor) -> dict[int, Score]:
        """Scores of everything asked of `rows`; sources[b][p] is where position p of row b lies in flat (P, d)."""
        wanted: dict[int, int] = {}  # position in flat -> index among the logits that are computed
        places: list[tuple[int, list[int], Tokens]] = []
        for row, where in zip(rows, sources, strict=True):
            for request, targets in row.asked:
                indices = [wanted.setdefault(at, len(wanted)) for at in where[len(where) - len(targets) :]]
                places.append((request, indices, targets))
        pairs = [(index, target) for _, indices, targets in places for index, target in zip(indices, targets)]  # noqa: B905
        values, greedy = self._lookup(flat[torch.tensor(list(wanted), device=self.device)], pairs)
        scores: dict[int, Score] = {}
        offset = 0
        for request, indices, _ in places:
            end = offset + len(indices)
            scores[request] = Score(sum(values[offset:end]), all(greedy[offset:end]))
            offset = end
        return scores

    def _lookup(self, hidden: Tensor, pairs: list[tuple[int, int]]) -> tuple[list[float], list[bool]]:
        """Log-probability of each (position, token), and whether it is the position's likeliest; hidden is (M, d)."""
        by_chunk: dict[int, list[int]] = defaultdict(list)
        for order, (index, _) in enumerate(pairs):
            by_chunk[index // LOGIT_ROWS].append(order)
        values, greedy = [0.0] * len(pairs), [False] * len(pairs)
        for chunk, orders in by_chunk.items():
            begin = chunk * LOGIT_ROWS
            logits = self.model.logits(hidden[begin : begin + LOGIT_ROWS]).float()  # (C, V)
            total, best = logits.logsumexp(-1), logits.argmax(-1)  # (C,), (C,)
            at = torch.tensor([pairs[order][0] - begin for order in orders], device=self.device)
            token = torch.tensor([pairs[order][1] for order in orders], device=self.device)
            found = (logits[at, token] - total[at]).double().tolist()
            same = (best[at] == token).tolist()
            for order, value, is_best in zip(orders, found, same, strict=True):
                values[order], greedy[order] = value, is_best
        return values, greedy

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Tokens],
        max_new_tokens: int,
        is_finished: Callable[[Tokens], bool] | None = None,
        progress: Progress = _ignore,
    ) -> list[Tokens]:
        """Greedy continuations of at most `max_new_tokens`; ends early where is_finished(new tokens).

        Prompts are cut from the left so that prompt and continuation fit block_size. Raises ValueError
        where max_new_tokens leaves no room for a prompt.
        """
        self.announce("generate", list(prompts), max_new_tokens)
        room = self.block_size - max_new_tokens
        if room < 1:
            raise ValueError(f"{max_new_tokens} new tokens leave no room for a prompt in block_size={self.block_size}")
        by_length: dict[int, list[int]] = defaultdict(list)
        cut = [prompt[-room:] for prompt in prompts]
        self.counts.requests += len(prompts)
        self.counts.truncated += sum(len(prompt) > room for prompt in prompts)
        for index in sorted(range(len(cut)), key=lambda index: (-len(cut[index]), cut[index])):
            by_length[len(cut[index])].append(index)
        answers: dict[int, Tokens] = {}
        for indices in by_length.values():  # one length a batch: no padding to hide
            for start in range(0, len(indices), self.batch_size):
                part = indices[start : start + self.batch_size]
                found = self._generate([cut[index] for index in part], max_new_tokens, is_finished)
                answers.update(zip(part, found, strict=True))
                progress(len(part))
        return [answers[index] for index in range(len(prompts))]

    def _generate(
        self, prompts: list[Tokens], max_new_tokens: int, is_finished: Callable[[Tokens], bool] | None
    ) -> list[Tokens]:
        cache = self.model.new_cache(len(prompts), len(prompts[0]) + max_new_tokens)
        tokens = torch.tensor(prompts, device=self.device)  # (B, T)
        new: list[Tokens] = [()] * len(prompts)
        done = [False] * len(prompts)
        for _ in range(max_new_tokens):
            logits = self.model(tokens, self.communicator, cache, last_only=True)  # (B, 1, V)
            tokens = logits[:, -1].argmax(-1, keepdim=True)  # (B, 1)
            for index, token in enumerate(tokens[:, 0].tolist()):
                if not done[index]:
                    new[index] += (token,)
                    done[index] = is_finished is not None and is_finished(new[index])
            if self.agree(all(done)):
                break
        return new
