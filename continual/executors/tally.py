"""One progress bar over jobs in other processes: the jobs report their pairs, and the bar adds them up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from continual.progress import Progress

BAR = "training"
"""Label of the bar whose units count; what else a job shows is dropped."""

RETRIES = 2
"""How often a job is started again after its process died."""

_EVERY_SECONDS = 0.2


class Tally:
    """Shows one bar over the pairs of all jobs. Several threads may report to it.

    Args:
        progress: Shows the bar.
        pairs: Training pairs of each job.
    """

    def __init__(self, progress: Progress, pairs: Sequence[int]) -> None:
        self._progress, self._pairs = progress, list(pairs)
        self._seen = [0] * len(pairs)
        self._lock = threading.Lock()
        progress.start(f"training {len(pairs)} model{'s' * (len(pairs) != 1)}", sum(pairs), "pairs")

    def tell(self, place: int, done: int) -> None:
        """Report how many pairs a job has done. A job that starts again from a checkpoint is not counted twice."""
        with self._lock:
            more = min(done, self._pairs[place]) - self._seen[place]
            if more > 0:
                self._seen[place] += more
                self._progress.advance(more)

    def complete(self, place: int) -> None:
        """Report that a job is done."""
        self.tell(place, self._pairs[place])

    def finish(self) -> None:
        """End the bar."""
        self._progress.finish()


class Counter:
    """The progress of a job in its own process: tells how many pairs are done, a few times a second at most."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._counts, self._done, self._told = tell, False, 0, 0.0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Count if it is the bar of the training."""
        self._counts = label == BAR
        if self._counts:
            self._done = 0
            self.advance(done)

    def advance(self, count: int) -> None:
        """Count more pairs as done."""
        if not self._counts:
            return
        self._done += count
        if (now := time.monotonic()) - self._told >= _EVERY_SECONDS:
            self._told = now
            self._tell(self._done)

    def finish(self) -> None:
        """Stop counting."""
        self._counts = False


def largest_first(pairs: Sequence[int]) -> list[int]:
    """Return the places of jobs by their pairs: a large job that starts last would leave the other processes idle."""
    return sorted(range(len(pairs)), key=lambda place: -pairs[place])


def fixed_threads() -> int | None:
    """Return the threads of a training that OMP_NUM_THREADS asks for, or None."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return max(int(value), 1) if value.isascii() and value.isdigit() else None
