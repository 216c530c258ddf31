"""The executors: `processes:N` on this machine, `ray` and `ray://HOST:PORT` on a cluster, or a function like `map`.

A job is plain data with paths. It is sent to another process, which reads and writes only the folders that the job
names. The results come back in the order of the jobs, each as soon as it and the ones before it are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from continual.errors import InputError, did_you_mean
from continual.executors.protocol import Execute, Executor, J, R
from continual.executors.tally import Tally
from continual.progress import Progress

RAY = "ray"
PROCESSES = "processes"

_FORMS = "processes:N with N of 1 or more, ray, or ray://HOST:PORT"


def parse_executor(text: str) -> tuple[str, str]:
    """Return an executor's name, "processes" or "ray", with the number of processes or the address of the cluster.

    Raises:
        InputError: The text is none of the forms.
    """
    name, _, rest = text.partition(":")
    if name == PROCESSES and rest.isascii() and rest.isdigit() and int(rest) > 0:
        return PROCESSES, str(int(rest))
    if text == RAY:
        return RAY, ""
    if name == RAY and rest.startswith("//") and rest != "//":
        return RAY, text
    raise InputError(
        f"--executor {text!r} is not an executor: it takes {_FORMS}.{did_you_mean(name, [PROCESSES, RAY])}"
    )


@contextmanager
def open_executor(executor: Executor, progress: Progress) -> Iterator[Execute]:
    """Yield a function that runs jobs; its processes end with the body of the `with` statement.

    Args:
        executor: `processes:N`, `ray`, `ray://ADDRESS`, or a function like `map`.
        progress: Shows one bar over the pairs of all jobs of a call.

    Raises:
        InputError: There is no such executor, Ray isn't installed or not reachable, or torchrun started this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--executor can't be used under torchrun or accelerate: a launcher's processes share each training, and an "
            "executor's processes take a training each. Leave one of the two out."
        )
    if callable(executor):
        yield _mapped(executor, progress)
        return
    name, rest = parse_executor(executor)
    if name == PROCESSES:
        from continual.executors.processes import open_processes

        with open_processes(int(rest), progress) as execute:
            yield execute
    else:
        from continual.executors.cluster import open_cluster

        with open_cluster(rest, progress) as execute:
            yield execute


def _mapped(executor: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]], progress: Progress) -> Execute:
    """Return a function that gives jobs to a caller's own executor, which shows only whole jobs as progress."""

    def execute(work: Callable[..., R], jobs: Sequence[J], pairs: Sequence[int]) -> Iterator[R]:
        tally = Tally(progress, pairs)
        for place, result in enumerate(executor(work, jobs)):
            tally.complete(place)
            yield result
        tally.finish()

    return execute
