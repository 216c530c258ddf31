"""Replay: which historical rows a step trains on again, and how they are read."""

from continual.replay.draw import Draw, Rows, Window
from continual.replay.policies import (
    Candidates,
    Policy,
    allot,
    get_policy,
)

__all__ = ["Candidates", "Draw", "Policy", "Rows", "Window", "allot", "get_policy"]
