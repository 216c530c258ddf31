"""Compute several batches at a time on a CPU, each with its own cores.

All cores on one small matrix product wait for each other at the end of each. Batches of their own don't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Item = TypeVar("Item")
Result = TypeVar("Result")

_OWN = ("transformers.", "sentence_transformers.", "torch.", "peft.")
"""Packages whose modules can compute in several threads at a time. Code that a model brings may keep state."""


def threads_for(model: SentenceTransformer) -> int:
    """Return how many threads may compute with a model at a time: one per core of a CPU, else 1."""
    if model.device.type != "cpu" or not all(type(module).__module__.startswith(_OWN) for module in model.modules()):
        return 1
    return torch.get_num_threads()


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int, cores: int = 1
) -> Iterator[tuple[Item, Result]]:
    """Yield each item and the function's result for it, in order.

    Args:
        function: Called in several threads at a time. It sets the modes of torch that it needs, since each thread has
            its own.
        items: The items.
        threads: Number of threads; with 1, the caller's thread computes, with all its cores.
        cores: Cores that each of several threads computes with.
    """
    if threads <= 1:
        yield from ((item, function(item)) for item in items)
        return
    with _same_cores(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(cores,)) as pool:
        try:
            yield from zip(items, pool.map(function, items), strict=True)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _same_cores() -> Iterator[None]:
    """Restore the number of cores afterwards: torch also gives it to threads that are started later."""
    cores = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(cores)
