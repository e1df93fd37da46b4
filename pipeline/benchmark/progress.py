"""What a grid has done, how many cells are to come, and about how long they will take."""

import time
from collections.abc import Callable

from tqdm import tqdm

Say = Callable[[str], None]


class Progress:
    """A line a cell, with a count and an ETA that takes the cells to come for as long as those done."""

    def __init__(self, say: Say, total: int) -> None:
        self.say, self.total = say, total
        self.done, self.before = 0, 0
        self.begun = time.monotonic()

    def skipped(self, cells: int, why: str) -> None:
        """Cells that were done before, and took no time now."""
        self.done += cells
        self.before += cells
        self.say(f"{self.done:>{len(str(self.total))}}/{self.total}  {why}")

    def finished(self, cell: str) -> None:
        self.done += 1
        left_s = (time.monotonic() - self.begun) / (self.done - self.before) * (self.total - self.done)
        count = f"{self.done:>{len(str(self.total))}}/{self.total}"
        eta = f"  ETA {tqdm.format_interval(left_s)}" if self.done < self.total else ""
        self.say(f"{count}  {cell}{eta}")
