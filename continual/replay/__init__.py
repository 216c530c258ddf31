"""Replay: which historical rows a step trains on again, and how they are read."""

from continual.replay.draw import Draw, RowReader
from continual.replay.policies import (
    Candidates,
    Policy,
    allot,
    get_policy,
)

__all__ = ["Candidates", "Draw", "Policy", "RowReader", "allot", "get_policy"]
