"""How much each phase tries: the only place that reads the setting, `FAULTS=short|medium|long`."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How much the phases try.

    Attributes:
        kills: SIGKILLs, over all cases that write.
        seconds: Length of the races.
        writers, readers: Processes of the races.
        mutations: Mutated inputs, over all formats.
        flips: Flipped bits, over all files of a workspace.
        moments: Moments of a full disk, and memory limits, at which each command is tried.
        all_commands: Whether each fault of the system meets every command; if not, a few.
    """

    kills: int
    seconds: int
    writers: int
    readers: int
    mutations: int
    flips: int
    moments: int
    all_commands: bool


SIZES = {
    "short": Sizes(kills=4, seconds=0, writers=0, readers=0, mutations=30, flips=4, moments=1, all_commands=False),
    "medium": Sizes(kills=100, seconds=60, writers=8, readers=4, mutations=300, flips=60, moments=2, all_commands=True),
    "long": Sizes(
        kills=2000, seconds=600, writers=16, readers=8, mutations=5000, flips=500, moments=20, all_commands=True
    ),
}

NAME = os.environ.get("FAULTS", "short")
"""Name of the size that was chosen."""

SIZE = SIZES[NAME]
