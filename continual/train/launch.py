"""Running one command in several processes: the first leads, the others train with it until it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from continual.errors import ContinualError
from continual.train.loop import train_together
from continual.train.team import TORN, Team, find_team, launched


@contextmanager
def leading() -> Iterator[bool]:
    """Yield whether this process is to run the command; the others train with it meanwhile, until it is done.

    Without a launcher, the one process there is.
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
                if not TORN.is_set():
                    team.share(None)
        else:
            _follow(team)
            yield False
    finally:
        # Its threads must have ended before the process does, or that ends in an abort now and then. Not in the middle
        # of a step that the others are in: ending them could wait for the others, which wait for this process.
        if not TORN.is_set():
            torch.distributed.destroy_process_group()


def _follow(team: Team) -> None:
    while (job := team.share(None)) is not None:
        try:
            train_together(team, job)
        except ContinualError:
            continue  # the first process meets the same, and says it
