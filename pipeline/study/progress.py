"""What is said while trials run: each one's end, and how long the rest will take."""

import time
from collections.abc import Callable, Iterable

from pipeline.training.trial import Outcome, Trial, tokens_per_step


class Progress:
    """Counts the training FLOPs of what is done; the rate so far gives the time that is left."""

    def __init__(self, say: Callable[[str], None], trials: Iterable[Trial]) -> None:
        """`trials` are those that are known; those that are done already cost nothing."""
        self.say = say
        self._left: dict[str, float] = {}
        kept = 0
        for trial in trials:
            if trial.outcomes() is None:
                self._left[trial.name] = trial.cost
            else:
                kept += 1
        self._total, self._done = len(self._left), 0
        self._spent, self._began = 0.0, time.monotonic()
        if kept:
            say(f"{kept} trials were done before, and are kept")
        if self._left:
            say(f"{len(self._left)} trials to do")

    def ended(self, trial: Trial, outcomes: list[Outcome]) -> None:
        """Say how a trial ended."""
        if trial.name not in self._left:
            self._total += 1
        self._left.pop(trial.name, None)
        self._done += 1
        last = outcomes[-1]
        self._spent += trial.cost * (last.tokens / (trial.jobs[-1].training.steps * tokens_per_step(trial.jobs[-1])))
        told = {
            "finished": f"{last.loss_nats:.4f} nats" if last.loss_nats is not None else "",
            "stopped": f"stopped by the search at {last.tokens:,} tokens",
            "diverged": f"diverged: {last.fault}",
        }[last.outcome]
        eta = ""
        if self._left and self._spent:
            left = sum(self._left.values()) / self._spent * (time.monotonic() - self._began)
            eta = f"; about {_duration(left)} left"
        self.say(f"[{self._done}/{self._total}] {trial.name}: {told} after {last.tokens:,} tokens{eta}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
