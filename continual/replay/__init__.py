"""Replay: which historical rows a step trains on again, and how they are read."""

from continual.replay.draw import Draw, Rows
from continual.replay.policies import (
    Candidates,
    Policy,
    allot,
    get_policy,
)

__all__ = ["Candidates", "Draw", "Policy", "Rows", "allot", "get_policy"]
