"""Iterate with the next items computed meanwhile, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = 2

_END: Any = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items, and compute the next one in a thread while the caller works on the last.

    It helps if the items are computed outside of Python's lock, as Arrow decodes and sorts.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, _END)
        while (item := future.result()) is not _END:
            future = pool.submit(next, items, _END)
            yield item


def mapped(function: Callable[[T], R], items: Iterator[T]) -> Iterator[R]:
    """Yield the results of a function for items in their order, some of which are computed at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[R]] = deque()
        for item in ahead(items):
            waiting.append(pool.submit(function, item))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
