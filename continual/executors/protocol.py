"""What an executor is, for the functions that call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")

Executor = str | Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`processes:N`, `ray` or `ray://ADDRESS`; or a function that maps a function over jobs and returns the results in
order, such as `map` or the `map` of a pool. Functions, jobs and results can be pickled."""


class Execute(Protocol):
    """Run a function on jobs that don't depend on each other."""

    def __call__(self, work: Callable[..., R], jobs: Sequence[J], pairs: Sequence[int]) -> Iterator[R]:
        """Yield the results in the order of the jobs, and show one bar over the pairs of all of them.

        Args:
            work: Called with a job, and with `progress=` by the executors of this package.
            jobs: One input of each call.
            pairs: Training pairs of each job.
        """
