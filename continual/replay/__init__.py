"""Replay: choose the historical rows that a step trains on again, and read them."""

from continual.replay.draw import Draw, RowReader
from continual.replay.policies import Candidates, Policy, allot, get_policy

__all__ = ["Candidates", "Draw", "Policy", "RowReader", "allot", "get_policy"]
