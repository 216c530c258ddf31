"""What runs on the nodes of a Ray cluster: a job, and the board that collects the progress of all jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from continual.errors import InputError
from continual.executors.tally import Counter
from continual.registry.provenance import libraries


class Board:
    """How many pairs each job has done. Ray runs it as an actor."""

    def __init__(self) -> None:
        self._done: dict[int, int] = {}

    def tell(self, place: int, done: int) -> None:
        """Note the pairs that a job has done."""
        self._done[place] = done

    def read(self) -> dict[int, int]:
        """Return the pairs by the place of the job."""
        return self._done


def run_task(work: Callable[..., Any], job: Any, place: int, threads: int, expected: dict[str, str], board: Any) -> Any:
    """Do a job on a node, with so many threads.

    Raises:
        InputError: The node has other versions of the libraries than the process that sent the job.
    """
    found = libraries()
    different = [
        f"{name} {found[name]} instead of {wanted}" for name, wanted in expected.items() if found[name] != wanted
    ]
    if different:
        raise InputError(
            f"The node {os.uname().nodename} has {', '.join(different)}, and other versions train other weights. "
            "Install the same versions on all nodes."
        )
    import torch

    torch.set_num_threads(threads)
    return work(job, progress=Counter(lambda done: board.tell.remote(place, done)))
