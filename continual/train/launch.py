"""Run one command in several processes: the first runs it, the others take part in its trainings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from continual.errors import ContinualError
from continual.train.loop import train_together
from continual.train.team import LEFT_TRAINING, Team, find_team, launched


@contextmanager
def leading() -> Iterator[bool]:
    """Yield true in the first process, which then runs the command. The others train with it, then yield false.

    Without a launcher there is only one process, the first.
    """
    if not launched():
        yield True
        return
    team = find_team()
    try:
        if team.first:
            try:
                yield True
            finally:
                if not LEFT_TRAINING.is_set():
                    team.share(None)
        else:
            _follow(team)
            yield False
    finally:
        # If the group's threads are still running when the process ends, it sometimes aborts. But in the middle of a
        # step the group must not be destroyed: that could wait for the others, which wait for this process.
        if not LEFT_TRAINING.is_set():
            torch.distributed.destroy_process_group()


def _follow(team: Team) -> None:
    while (job := team.share(None)) is not None:
        try:
            train_together(team, job)
        except ContinualError:
            continue  # the first process raises the same error and reports it
